//! What the README prints, run as it is printed: only the token, the ports
//! and the network that Helia would join are the test's own.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use pinfold_e2e::{
    data,
    kubo::Kubo,
    pinfold::Pinfold,
    place::{Place, text},
    process::{command, finish, finish_within, peer},
    scenario::count,
    script::checkout,
    test,
};
use serde_json::Value;

/// The longest that Helia loads and pins.
const HELIA: Duration = Duration::from_secs(90);

/// The first block in this language after `heading` in the README.
fn block(heading: &str, language: &str) -> Result<String> {
    let text = fs::read_to_string(checkout().join("README.md"))?;
    let (_, after) = text.split_once(heading).with_context(|| format!("the README has no {heading:?}"))?;
    let (_, block) = after
        .split_once(&format!("```{language}\n"))
        .with_context(|| format!("the README has no block of {language} after {heading:?}"))?;
    let (block, _) = block.split_once("\n```").context("a block has an end")?;
    Ok(block.to_owned())
}

/// The block with this Pinfold's token and ports in the places of the printed.
fn for_this(block: &str, pinfold: &Pinfold) -> String {
    let block = block.replace("TOKEN='eyJ0eXAiOi…'", &format!("TOKEN='{}'", pinfold.token));
    let block = block.replace("http://127.0.0.1:8070", &pinfold.endpoint);
    block.replace("http://127.0.0.1:8071", &pinfold.gateway)
}

/// Runs lines as a shell does that stops at the first which fails.
async fn shell(
    place: &Place,
    programs: &[&Path],
    environment: &[(&str, &str)],
    lines: &str,
) -> Result<String> {
    let mut path: Vec<_> =
        programs.iter().filter_map(|program| program.parent()).map(Path::to_owned).collect();
    path.extend(std::env::split_paths(&std::env::var_os("PATH").context("there is a PATH")?));
    let mut shell = command("sh");
    shell.args(["-eu", "-c", lines]).current_dir(place.path()).env("HOME", place.path());
    shell.env("PATH", std::env::join_paths(path)?).envs(environment.iter().copied());
    finish(&mut shell, lines).await?.success(lines)?.text()
}

#[test]
fn kubos_lines_pin_a_folder_that_curls_lines_read_back() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let mut kubo = Kubo::start(place, "kubo").await?;
        let photos = place.folder("photos")?;
        let cat = data::bytes(1, 700_000);
        fs::write(photos.join("cat.jpg"), &cat)?;
        let (ipfs, repository) = (peer("PINFOLD_E2E_KUBO")?, place.path().join("kubo"));
        let repository = [("IPFS_PATH", text(&repository)?)];
        let lines = for_this(&block("**Kubo**", "sh")?, &pinfold) + "\necho \"$CID\"";
        let said = shell(place, &[&ipfs], &repository, &lines).await?;
        let cid = said.lines().last().context("the folder has a CID")?;
        ensure!(said.contains(&format!("{cid}\tpinned\tphotos")), "Kubo lists the pin: {said}");
        kubo.stop().await?;
        let lines = format!("CID={cid}\n{}", for_this(&block("Read it back", "sh")?, &pinfold));
        let list = shell(place, &[], &[], &lines).await?;
        ensure!(list.contains("cat.jpg"), "the gateway lists the folder: {list}");
        ensure!(fs::read(place.path().join("cat.jpg"))? == cat, "the file came back as it was");
        ensure!(fs::metadata(place.path().join("photos.car"))?.len() > 700_000, "the CAR has all of it");
        let remove = "ipfs pin remote rm --service=pinfold --name=photos";
        ensure!(fs::read_to_string(checkout().join("README.md"))?.contains(&format!("`{remove}`")));
        kubo.resume().await?;
        shell(place, &[&ipfs], &repository, remove).await?;
        count(&pinfold, "status=queued,pinning,pinned,failed", 0).await
    });
}

#[test]
fn curls_lines_pin_and_list() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let said = shell(place, &[], &[], &for_this(&block("**curl**", "sh")?, &pinfold)).await?;
        let mut answers = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
        let pin = answers.next().context("the POST is answered")??;
        let list = answers.next().context("the GET is answered")??;
        assert_eq!((&pin["status"], &pin["pin"]["name"]), (&"pinned".into(), &"hello".into()));
        assert_eq!((&list["count"], &list["results"][0]["requestid"]), (&1.into(), &pin["requestid"]));
        Ok(())
    });
}

#[test]
fn pinfolds_own_lines_pin_and_list() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let program = peer("PINFOLD_BIN")?;
        let built = program.file_name().is_some_and(|name| name == "pinfold");
        ensure!(built, "{} is not what the README calls it", program.display());
        let lines = for_this(&block("**Without any IPFS software**", "sh")?, &pinfold);
        let endpoint = [("PINFOLD_ENDPOINT", pinfold.endpoint.as_str())];
        let said = shell(place, &[&program], &endpoint, &lines).await?;
        let pinned = said.lines().filter(|line| line.split('\t').nth(1) == Some("pinned"));
        assert_eq!(pinned.count(), 2, "the pin, and the list with it: {said}");
        Ok(())
    });
}

#[test]
fn helias_script_pins_what_it_has() {
    test(async |place| {
        let pinfold = Pinfold::up(place, "pinfold", &[]).await?;
        let packages = peer("PINFOLD_E2E_HELIA")?;
        // Imports are looked up from a script's own folder.
        let folder = place.folder("helia")?;
        for name in ["node_modules", "package.json", "hooks.mjs", "readme.mjs"] {
            std::os::unix::fs::symlink(packages.join(name), folder.join(name))?;
        }
        fs::write(folder.join("pin-as-printed.mjs"), for_this(&block("**Helia**", "js")?, &pinfold))?;
        let mut node = command(peer("PINFOLD_E2E_NODEJS")?);
        node.args(["--no-warnings", "--import", "./hooks.mjs", "--import", "./readme.mjs"]);
        node.arg("pin-as-printed.mjs");
        node.current_dir(&folder).env("TOKEN", &pinfold.token);
        let said = finish_within(&mut node, "the README's Helia script", HELIA).await?;
        let said = said.success("the README's Helia script")?.text()?;
        let pin = pinfold.api()?.list("status=pinned").await?.results.remove(0);
        assert_eq!(pin.pin.name.as_deref(), Some("from Helia"));
        assert_eq!(said, format!("pinned {}", pin.pin.cid));
        Ok(())
    });
}
