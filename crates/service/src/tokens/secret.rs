//! The secret file: what seals the token-signing keys in the database.
//!
//! A copy of the database alone then makes no tokens. The file is a text or
//! bytes of at least 32 bytes; `pinfold up` makes one with mode 0600.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Fewer bytes could be guessed.
pub const MIN_BYTES: usize = 32;
/// More is a wrong file.
const MAX_BYTES: u64 = 64 << 10;
/// The first byte of whatever is sealed; grows with the format.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;

/// The content of a secret file. Never shown.
#[derive(Clone)]
pub struct Secret {
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("cannot {what} the secret file {}: {source}", path.display())]
    File {
        /// `read` or `make`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Too few bytes, or far too many.
    #[error(
        "the secret file {} has {bytes} bytes; it needs {MIN_BYTES} to {MAX_BYTES}, as from `openssl rand -hex 32`", path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Something was sealed with another secret, or was changed.
    #[error(
        "a token key in the database was sealed with another secret; give the secret file that belongs to it"
    )]
    Foreign,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Secret {
    /// Reads a secret file. Line ends after the text do not count.
    ///
    /// # Errors
    /// When it cannot be read or has the wrong length.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::File { what: "read", path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        let text = bytes.trim_ascii_end();
        if text.len() < MIN_BYTES || bytes.len() as u64 > MAX_BYTES {
            return Err(SecretError::Length { path: path.to_owned(), bytes: text.len() });
        }
        Ok(Self::from_bytes(text))
    }

    /// Reads a secret file, making one for the owner alone where there is none.
    /// It is on disk when this returns.
    ///
    /// # Errors
    /// When it can neither be read nor made.
    pub fn read_or_make(path: &Path) -> Result<Self, SecretError> {
        match Self::make(path) {
            Err(SecretError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        Self::read(path)
    }

    /// A secret from bytes, for tests and other stores of secrets.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let key = Sha256::new().chain_update(b"pinfold/secret/1\0").chain_update(bytes).finalize();
        let key: [u8; 32] = key.into();
        Self { cipher: XChaCha20Poly1305::new(Key::from_slice(&key)) }
    }

    /// Makes the file under another name first, so that no crash leaves half a
    /// secret behind, and links it to its own, so that none is overwritten.
    fn make(path: &Path) -> Result<(), SecretError> {
        let failed = |source| SecretError::File { what: "make", path: path.to_owned(), source };
        if path.exists() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        let mut bytes = [0; 40];
        getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
        let (secret, suffix) = bytes.split_at(32);
        let draft = path.with_extension(format!("draft-{}", HEXLOWER.encode(suffix)));
        let made = write_durably(&draft, &format!("{}\n", HEXLOWER.encode(secret)))
            .and_then(|()| fs::hard_link(&draft, path))
            .and_then(|()| sync_directory(path));
        // A draft that stays behind is not used by anything.
        let _ = fs::remove_file(&draft);
        made.map_err(failed)
    }

    /// Seals bytes for a named purpose; opens only under the same name.
    pub(crate) fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, SecretError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(SecretError::Random)?;
        let payload = Payload { msg: plain, aad: name.as_bytes() };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.expect("a key is far below the cipher's limit of 256 GiB");
        Ok([&[VERSION], &nonce[..], &sealed].concat())
    }

    /// Opens what [`Self::seal`] sealed.
    pub(crate) fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SecretError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(SecretError::Foreign)?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES).ok_or(SecretError::Foreign)?;
        let payload = Payload { msg: text, aad: name.as_bytes() };
        self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SecretError::Foreign)
    }
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes the new name itself survive a power loss.
fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_secret_and_name_alone() {
        let secret = Secret::from_bytes(&[1; 32]);
        let sealed = secret.seal("a", b"plain").unwrap();
        assert_eq!(secret.open("a", &sealed).unwrap(), b"plain");
        assert!(secret.open("b", &sealed).is_err());
        assert!(Secret::from_bytes(&[2; 32]).open("a", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(secret.open("a", &changed).is_err(), "byte {at}");
            assert!(secret.open("a", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_file_is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let sealed = Secret::read_or_make(&path).unwrap().seal("a", b"plain").unwrap();
        assert_eq!(Secret::read_or_make(&path).unwrap().open("a", &sealed).unwrap(), b"plain");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_short_file_is_refused_with_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "short\n\n").unwrap();
        let text = Secret::read(&path).unwrap_err().to_string();
        assert!(text.contains("5 bytes"), "{text}");
        assert!(Secret::read(&directory.path().join("none")).is_err());
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::from_bytes(&[1; 32])), "Secret");
    }
}
