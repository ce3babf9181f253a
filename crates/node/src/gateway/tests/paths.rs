//! Files, directories, caching, other origins.

use pinfold_core::content::Cid;

use super::{
    Served,
    dag::{self, Dag},
};

/// `/ą/ę/file-źł.txt`, `/site/` with an index, `/bar` that links to `foo`.
struct Site {
    dag: Dag,
    root: Cid,
    upper: Cid,
    lower: Cid,
    text: Cid,
    site: Cid,
    index: Cid,
}

const TEXT: &[u8] = b"hello application/vnd.ipld.car\n";

fn site() -> Site {
    let mut dag = Dag::default();
    let text = dag.leaf(TEXT);
    let lower = dag.dir(&[("file-źł.txt", text), ("<b>&\"'", text)]);
    let upper = dag.dir(&[("ę", lower)]);
    let index = dag.inline(b"<p>hi</p>");
    let site = dag.dir(&[("index.html", index), ("a.svg", text)]);
    let bar = dag.symlink("foo");
    let percent = dag.leaf(*b"percent");
    let root = dag.dir(&[
        ("ą", upper),
        ("site", site),
        ("bar", bar),
        ("ascii.txt", text),
        ("Portugal%2C+España=Peninsula Ibérica.txt", percent),
    ]);
    Site { dag, root, upper, lower, text, site, index }
}

const IMMUTABLE: &str = "public, max-age=29030400, immutable";

#[tokio::test]
async fn directories_are_listed() {
    let Site { dag, root, upper, lower, text, .. } = site();
    let served = Served::new(&dag).await;
    let moved = served.get(&format!("/ipfs/{root}/%C4%85/%C4%99?x=1")).await;
    let location = format!("/ipfs/{root}/%C4%85/%C4%99/");
    assert_eq!((moved.status, moved.header("location")), (301, format!("{location}?x=1").as_str()));
    let page = served.get(&location).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("etag"), format!("\"DirIndex-1_CID-{lower}\""));
    assert_eq!(page.header("cache-control"), "public, max-age=604800, stale-while-revalidate=2678400");
    assert_eq!(page.header("x-ipfs-path"), location);
    assert_eq!(page.header("x-ipfs-roots"), format!("{root},{upper},{lower}"));
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains("sandbox")
            && !policy.contains("allow-scripts")
    );
    let html = page.text();
    for part in [
        "Index of",
        &format!(
            "/ipfs/<a href=\"/ipfs/{root}\">{root}</a>/<a href=\"/ipfs/{root}/%C4%85\">ą</a>/<a href=\"/ipfs/{root}/%C4%85/%C4%99\">ę</a>"
        ),
        &format!("<a href=\"{location}..\">..</a>"),
        &format!("<a href=\"{location}file-%C5%BA%C5%82.txt\">file-źł.txt</a>"),
        &format!("href=\"/ipfs/{text}?filename=file-%C5%BA%C5%82.txt\""),
        "&lt;b&gt;&amp;&quot;&#39;",
    ] {
        assert!(html.contains(part), "{part} is missing in {html}");
    }
    let top = served.get(&format!("/ipfs/{root}/")).await;
    assert!(!top.text().contains(">..<") && top.text().contains(">bar<"));
    let head = served.head(&location).await;
    assert_eq!(head.header("content-length"), html.len().to_string());
}

#[tokio::test]
async fn files_are_served_whole_and_in_part() {
    let Site { dag, root, text, site, index, .. } = site();
    let served = Served::new(&dag).await;
    let path = format!("/ipfs/{root}/ascii.txt");
    let file = served.get(&path).await;
    assert_eq!((file.status, &file.body[..]), (200, TEXT));
    for (name, expected) in [
        ("content-type", "text/plain; charset=utf-8"),
        ("accept-ranges", "bytes"),
        ("cache-control", IMMUTABLE),
        ("etag", &format!("\"{text}\"")),
        ("x-ipfs-path", &path),
        ("x-ipfs-roots", &format!("{root},{text}")),
        ("content-security-policy", ""),
        ("content-disposition", ""),
    ] {
        assert_eq!(file.header(name), expected, "{name}");
    }
    for (range, expected) in [("bytes=6-16", 6..17), ("bytes=-3", 28..31), ("bytes=6-16,0-4", 6..17)] {
        let part = served.get_with(&path, &[("Range", range)]).await;
        assert_eq!((part.status, &part.body[..]), (206, &TEXT[expected]), "{range}");
    }
    assert_eq!(served.get_with(&path, &[("Range", "bytes=31-")]).await.status, 416);
    let page = served.get(&format!("/ipfs/{root}/site/")).await;
    assert_eq!((page.status, page.text()), (200, "<p>hi</p>"));
    assert_eq!(
        (page.header("etag"), page.header("cache-control")),
        (format!("\"{site}\"").as_str(), IMMUTABLE)
    );
    assert_eq!(page.header("x-ipfs-roots"), format!("{root},{site}"));
    // Without an origin of its own, what may run scripts runs in none.
    for path in ["site/", "site/index.html", "site/a.svg"] {
        let reply = served.get(&format!("/ipfs/{root}/{path}")).await;
        let policy = reply.header("content-security-policy");
        assert!(policy.starts_with("sandbox") && !policy.contains("allow-same-origin"), "{path}");
    }
    assert_eq!(served.get(&format!("/ipfs/{index}")).await.text(), "<p>hi</p>");
    let percent = format!("/ipfs/{root}/Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt");
    assert_eq!(served.get(&percent).await.text(), "percent");
    let link = served.get(&format!("/ipfs/{root}/bar")).await;
    assert_eq!((link.status, link.text()), (200, "foo"));
    assert_eq!(served.get(&format!("/ipfs/{root}/none")).await.status, 404);
    assert_eq!(served.get(&format!("/ipfs/{root}/ascii.txt/none")).await.status, 404);
}

#[tokio::test]
async fn long_files_come_in_pieces() {
    let mut dag = Dag::default();
    let data = dag::bytes(5 << 20);
    let (file, _) = dag.file(&data, 100_000);
    let inline = dag.inline(&data[..1_000]);
    let tiny = dag.file(&data[1_000..20_000], 7).0;
    let rest = dag.file(&data[20_000..], 262_144).0;
    let sizes = [(inline, 1_000), (tiny, 19_000), (rest, data.len() as u64 - 20_000)];
    let nested = dag.parts(&sizes);
    let served = Served::new(&dag).await;
    for cid in [file, nested] {
        let path = format!("/ipfs/{cid}?filename=a.bin");
        let reply = served.get(&path).await;
        assert!(reply.is_whole && reply.body == data, "{cid}");
        assert_eq!(reply.header("content-length"), data.len().to_string());
        for range in [999..1_001, 0..1, 19_990..20_010, 100_000..4_000_000, data.len() - 1..data.len()] {
            let header = format!("bytes={}-{}", range.start, range.end - 1);
            let part = served.get_with(&path, &[("Range", &header)]).await;
            assert!(part.status == 206 && part.body == data[range.clone()], "{cid} {range:?}");
        }
    }
}

#[tokio::test]
async fn names_and_downloads_are_suggested() {
    let Site { dag, root, text, .. } = site();
    let served = Served::new(&dag).await;
    let check = async |path: String, expected: &str| {
        let reply = served.get(&path).await;
        assert_eq!(reply.header("content-disposition"), expected, "{path}");
    };
    check(format!("/ipfs/{text}?filename=a%22b.html"), "inline; filename=\"a_b.html\"").await;
    check(format!("/ipfs/{root}/ascii.txt?download=true"), "attachment; filename=\"ascii.txt\"").await;
    check(format!("/ipfs/{text}?download=true"), &format!("attachment; filename=\"{text}\"")).await;
    let typed = served.get(&format!("/ipfs/{text}?filename=a.html")).await;
    assert_eq!(typed.header("content-type"), "text/html; charset=utf-8");
}

#[tokio::test]
async fn what_the_client_has_is_not_sent() {
    let Site { dag, root, text, site, lower, .. } = site();
    let served = Served::new(&dag).await;
    let check = async |path: &str, tag: &str, status: u16| {
        let path = format!("/ipfs/{root}/{path}");
        let reply = served.get_with(&path, &[("If-None-Match", tag)]).await;
        assert_eq!(reply.status, status, "{path} {tag}");
        assert_eq!(reply.body.is_empty(), status == 304);
    };
    check("ascii.txt", &format!("\"{text}\""), 304).await;
    check("ascii.txt", &format!("W/\"{text}\""), 304).await;
    check("ascii.txt", &format!("\"a\", \"b\", \"{text}\""), 304).await;
    check("ascii.txt", "*", 304).await;
    check("ascii.txt", "\"a\"", 200).await;
    check("site/", &format!("\"{site}\""), 304).await;
    check("%C4%85/%C4%99/", &format!("\"DirIndex-1_CID-{lower}\""), 304).await;
    check("ascii.txt?format=raw", &format!("\"{text}.raw\""), 304).await;
    check("ascii.txt?format=raw", &format!("\"{text}\""), 200).await;
    let car = format!("/ipfs/{root}?format=car");
    let tag = served.head(&car).await.header("etag").to_owned();
    assert_eq!(served.get_with(&car, &[("If-None-Match", &tag)]).await.status, 304);
    let scoped = served.head(&format!("{car}&dag-scope=block")).await;
    assert_ne!(scoped.header("etag"), tag);
}

#[tokio::test]
async fn what_is_not_held_is_not_found() {
    let Site { dag, root, .. } = site();
    let served = Served::new(&dag).await;
    let missing = "QmYzfKSE55XCjD1MW128RfciAf2DViABhEiXfgVFMabSjN";
    for query in ["", "?format=raw", "?format=car"] {
        for method in ["GET", "HEAD"] {
            let path = format!("/ipfs/{missing}{query}");
            assert_eq!(served.send(method, &path, &[]).await.status, 404, "{method} {query}");
            let cached = [("Cache-Control", "max-age=0, only-if-cached")];
            assert_eq!(served.send(method, &path, &cached).await.status, 412, "{method} {query}");
            let held = format!("/ipfs/{root}/site/{query}");
            assert_eq!(served.send(method, &held, &cached).await.status, 200, "{method} {query}");
        }
    }
    assert_eq!(served.get("/").await.status, 404);
    assert_eq!(served.get("/ipns/example.org").await.status, 404);
    let invalid = served.get("/ipfs/QmInvalidCID").await;
    assert_eq!(invalid.status, 400);
    assert!(invalid.text().contains("invalid path \"/ipfs/QmInvalidCID\""));
}

#[tokio::test]
async fn other_origins_may_read_everything() {
    let Site { dag, root, .. } = site();
    let served = Served::new(&dag).await;
    for (method, path, status) in [
        ("GET", format!("/ipfs/{root}/ascii.txt"), 200),
        ("OPTIONS", format!("/ipfs/{root}/"), 204),
        ("GET", "/ipfs/x".to_owned(), 400),
        ("POST", format!("/ipfs/{root}/"), 405),
        ("DELETE", format!("/ipfs/{root}/"), 405),
    ] {
        let reply = served.send(method, &path, &[("Origin", "https://example.org")]).await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        let has = |name: &str, words: &[&str]| {
            let words_found = reply.header(name).split(", ").collect::<Vec<_>>();
            assert!(words.iter().all(|word| words_found.contains(word)), "{name}: {words_found:?}");
        };
        has("access-control-allow-methods", &["GET", "HEAD", "OPTIONS"]);
        has("access-control-allow-headers", &["Content-Type", "Range", "User-Agent", "X-Requested-With"]);
        has(
            "access-control-expose-headers",
            &["Content-Range", "Content-Length", "X-Ipfs-Path", "X-Ipfs-Roots"],
        );
    }
}

#[tokio::test]
async fn each_dag_has_an_origin_below_the_domain() {
    let Site { dag, root, text, .. } = site();
    let served = Served::at(&dag, Some("Example.com")).await;
    let at = async |host: &str, path: &str| served.get_with(path, &[("Host", host)]).await;
    let host = format!("{root}.ipfs.example.com:80");
    let moved = at("example.com:80", &format!("/ipfs/{root}/site/?a=b")).await;
    assert_eq!((moved.status, moved.header("location")), (301, format!("http://{host}/site/?a=b").as_str()));
    let headers = [("Host", "example.com:80"), ("X-Forwarded-Proto", "https")];
    let secure = served.get_with(&format!("/ipfs/{root}"), &headers).await;
    assert_eq!(secure.header("location"), format!("https://{host}/"));
    let page = at(&host, "/site/").await;
    assert_eq!((page.status, page.text(), page.header("content-security-policy")), (200, "<p>hi</p>", ""));
    assert_eq!(page.header("x-ipfs-path"), format!("/ipfs/{root}/site/"));
    let slash = at(&host, "/%C4%85/%C4%99").await;
    assert_eq!((slash.status, slash.header("location")), (301, "/%C4%85/%C4%99/"));
    let listing = at(&host, "/%C4%85/%C4%99/").await;
    for part in [
        "<a href=\"/%C4%85/%C4%99/..\">..</a>",
        "<a href=\"/%C4%85/%C4%99/file-%C5%BA%C5%82.txt\">file-źł.txt</a>",
        &format!("/ipfs/<a href=\"//example.com:80/ipfs/{root}\">{root}</a>"),
        &format!("href=\"//example.com:80/ipfs/{text}?filename="),
    ] {
        assert!(listing.text().contains(part), "{part} is missing in {}", listing.text());
    }
    assert!(!at(&host, "/").await.text().contains(">..<"));
    assert_eq!(at(&host, &format!("/ipfs/{root}/")).await.status, 404);
    // Bytes that nothing renders need no origin.
    let raw = at("example.com:80", &format!("/ipfs/{text}?format=raw")).await;
    assert_eq!((raw.status, &raw.body[..]), (200, TEXT));
    let elsewhere = at("other.example", &format!("/ipfs/{root}/site/")).await;
    assert!(elsewhere.header("content-security-policy").starts_with("sandbox"));
    // A proxy may say that it was asked for the domain, and nothing else.
    let forwarded = [("Host", "127.0.0.1"), ("X-Forwarded-Host", "example.com:80")];
    let moved = served.get_with(&format!("/ipfs/{root}/site/"), &forwarded).await;
    assert_eq!(moved.header("location"), format!("http://{host}/site/"));
    let forged = [("Host", "127.0.0.1"), ("X-Forwarded-Host", &*host)];
    assert_eq!(served.get_with("/site/", &forged).await.status, 404);
    let forged = [("Host", &*host), ("X-Forwarded-Host", "example.com")];
    assert_eq!(served.get_with(&format!("/ipfs/{text}"), &forged).await.status, 404);
    // What a browser hands over that this is registered with for ipfs://.
    let handed = at("example.com", &format!("/ipfs/?uri=ipfs%3A%2F%2F{root}%2Fsite%2F")).await;
    assert_eq!((handed.status, handed.header("location")), (301, format!("/ipfs/{root}/site/").as_str()));
    assert_eq!(at("example.com", "/ipfs/?uri=https%3A%2F%2Fexample.org").await.status, 400);
}

#[tokio::test]
async fn service_workers_stay_below_their_root() {
    let Site { dag, root, .. } = site();
    let served = Served::new(&dag).await;
    let worker = [("Service-Worker", "script")];
    assert_eq!(served.get_with(&format!("/ipfs/{root}"), &worker).await.status, 400);
    assert_eq!(served.get_with(&format!("/ipfs/{root}/ascii.txt"), &worker).await.status, 200);
}
