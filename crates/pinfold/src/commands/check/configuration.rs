//! Settings that can be read and fit together, and files that others cannot
//! read.

use std::{fs, net::IpAddr, path::Path};

use pinfold_core::denylist::Denylist;
use pinfold_service::{Tls, db::Location};
use url::{Host, Url};

use super::{Findings, Level};
use crate::cli::UpArgs;

pub(super) fn check(args: &UpArgs, findings: &mut Findings) {
    let before = findings.all.len();
    private(&args.data.secret_path(), findings);
    if let Ok(Location::Sqlite(file)) = args.data.location() {
        private(&file, findings);
    }
    tls(args, findings);
    denylist(args, findings);
    proxy(args, findings);
    if findings.all.len() == before {
        findings.add(Level::Ok, format!("{} and the settings fit together", args.data.data.display()));
    }
}

/// A file that its owner alone may read, where it exists.
#[cfg(unix)]
fn private(path: &Path, findings: &mut Findings) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(metadata) = fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        let path = path.display();
        findings.add(Level::Wrong, format!("others on this machine can read {path}: `chmod 600 {path}`"));
    }
}

#[cfg(not(unix))]
fn private(_path: &Path, _findings: &mut Findings) {}

fn tls(args: &UpArgs, findings: &mut Findings) {
    match args.service.tls.tls(&args.data) {
        Ok(Some(Tls::Files { certificate, key })) => {
            for file in [certificate, key] {
                if let Err(error) = fs::File::open(&file) {
                    let file = file.display();
                    findings
                        .add(Level::Wrong, format!("cannot read {file}: {error}; the service cannot start"));
                }
            }
        }
        Ok(_) => {}
        Err(error) => findings.add(Level::Wrong, format!("{error:#}")),
    }
}

fn denylist(args: &UpArgs, findings: &mut Findings) {
    let Some(file) = &args.service.denylist else { return };
    match fs::read_to_string(file) {
        Ok(text) => {
            for error in &Denylist::parse(&text).1 {
                findings
                    .add(Level::Wrong, format!("in {}: {error}; mend or remove the line", file.display()));
            }
        }
        Err(error) => findings.add(
            Level::Wrong,
            format!("cannot read the denylist {}: {error}; --denylist names it", file.display()),
        ),
    }
}

/// What the way of users' requests to the API needs.
fn proxy(args: &UpArgs, findings: &mut Findings) {
    let Some(url) = args.service.public_url().and_then(|url| url.parse::<Url>().ok()) else { return };
    if url.scheme() == "http" && !is_local(&url) {
        findings.add(
            Level::Note,
            format!(
                "tokens travel to {url} in the clear; serve HTTPS by --tls-acme or --tls-cert, or a proxy's"
            ),
        );
    }
    let behind = !args.service.tls.is_on() && args.service.api.ip().is_loopback();
    if behind && args.service.trusted_proxy.is_empty() {
        findings.add(
            Level::Note,
            "a proxy on this machine seems to stand before --api, and its address is every client's; name it with \
             --trusted-proxy",
        );
    }
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    }
}
