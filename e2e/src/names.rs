//! Names in the small networks of [`crate::net`]: a name server on a host, and
//! hosts that ask it.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use crate::{
    net::Hosts,
    place::Place,
    process::{Daemon, command_in},
};

/// The longest until the name server is ready.
const READY: Duration = Duration::from_secs(10);

/// Files that `ip netns exec` puts over those of `/etc`.
pub(crate) fn files_of(namespace: &str) -> PathBuf {
    PathBuf::from("/etc/netns").join(namespace)
}

impl Hosts {
    /// Has programs that are started on `host` from now on ask the name server
    /// of another host, and none else.
    pub fn ask_for_names(&self, host: u8, server: u8) -> Result<()> {
        let folder = files_of(self.name(host));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let text = format!("nameserver {}\n", Self::address(server));
        Ok(fs::write(folder.join("resolv.conf"), text)?)
    }

    /// Serves names on a host until the answer is dropped. `program` is this
    /// package's `nameserver`, and each record is its argument.
    pub async fn serve_names(
        &self,
        place: &Place,
        host: u8,
        program: &str,
        records: &[String],
    ) -> Result<Daemon> {
        let mut command = command_in(Some(self.name(host)), program);
        command.arg(format!("{}:53", Self::address(host))).args(records);
        let mut daemon = Daemon::start("nameserver", &mut command, &place.log("nameserver"))?;
        daemon.read_until(READY, |line| line.contains("names are served")).await?;
        Ok(daemon)
    }
}
