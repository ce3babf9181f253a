//! The node's key: who it is on the network and to its service.

use std::io::{Read, Write};
use std::path::Path;

use ed25519_dalek::SigningKey;
use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};

/// The file in the data folder: the 32 bytes of an Ed25519 secret key.
pub const FILE: &str = "node.key";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("the node's key {path} cannot be {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Other contents.
    #[error(
        "the node's key {0} does not have 32 bytes; restore it from a backup, or remove it to become a new node"
    )]
    Form(String),
}

/// An Ed25519 key in the two forms that its users take.
#[derive(Clone)]
pub struct Identity {
    /// Signs what is sent to the service.
    pub signing: SigningKey,
    /// Is the node on the network; its public key is the peer id.
    pub keypair: Keypair,
}

/// A text that is not the peer id of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the peer id of a node, such as 12D3KooW…; `pinfold node id` prints it")]
pub struct NotAPeerId(String);

/// The Ed25519 public key that a node's peer id holds.
///
/// # Errors
/// When the text is not a peer id, or one of another kind of key.
pub fn peer_key(text: &str) -> Result<[u8; 32], NotAPeerId> {
    let refused = || NotAPeerId(text.to_owned());
    let peer: PeerId = text.parse().map_err(|_| refused())?;
    let multihash = peer.as_ref();
    // The identity multihash of a key is its protobuf: type, then data.
    let key = (multihash.code() == 0).then(|| PublicKey::try_decode_protobuf(multihash.digest()));
    let key = key.and_then(Result::ok).and_then(|key| key.try_into_ed25519().ok());
    key.map(|key| key.to_bytes()).ok_or_else(refused)
}

impl Identity {
    /// The identity of the data folder, which is made on the first start, with
    /// mode 0600.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds something else.
    pub fn load_or_create(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        match std::fs::File::open(&path) {
            Ok(file) => Self::read(file, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(dir, &path),
            Err(error) => Err(failed("opened", &path)(error)),
        }
    }

    /// The identity of a secret key.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let mut copy = secret;
        let key = ed25519::SecretKey::try_from_bytes(&mut copy).expect("any 32 bytes are an Ed25519 secret");
        Self { signing: SigningKey::from_bytes(&secret), keypair: Keypair::from(ed25519::Keypair::from(key)) }
    }

    fn read(mut file: std::fs::File, path: &Path) -> Result<Self, Error> {
        let mut secret = Vec::new();
        (&mut file).take(33).read_to_end(&mut secret).map_err(failed("read", path))?;
        let secret = secret.try_into().map_err(|_| Error::Form(path.display().to_string()))?;
        Ok(Self::from_secret(secret))
    }

    /// Writes the key aside and links it to its name, so that a crash leaves
    /// no half of one, and two processes end with the same one.
    fn create(dir: &Path, path: &Path) -> Result<Self, Error> {
        let secret: [u8; 32] = rand::random();
        let new = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new).map_err(failed("created", path))?;
        file.write_all(&secret).and_then(|()| file.sync_all()).map_err(failed("written", path))?;
        std::fs::rename(&new, path).map_err(failed("renamed", path))?;
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("synced", path))?;
        Ok(Self::from_secret(secret))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let again = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.signing, again.signing);
        let public = first.keypair.public().try_into_ed25519().unwrap();
        assert_eq!(public.to_bytes(), first.signing.verifying_key().to_bytes());
        #[cfg(unix)]
        {
            let mode = std::fs::metadata(dir.path().join(FILE)).unwrap();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
        }
        std::fs::write(dir.path().join(FILE), [1; 31]).unwrap();
        assert!(matches!(Identity::load_or_create(dir.path()), Err(Error::Form(_))));
    }
}
