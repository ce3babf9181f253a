//! What this machine can do at most: to be read beside the other rows. Every
//! byte that is moved is hashed, encrypted on its way, and written.

use std::{fs::File, io::Write as _, time::Instant};

use anyhow::{Result, anyhow};
use pinfold_e2e::{data, place::Place};
use ring::aead::{AES_128_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

use crate::{
    scale::Scale,
    table::{Table, median},
};

/// A MiB, and what is hashed or written at a time, in bytes.
const MIB: usize = 1 << 20;

/// What one message of the Noise protocol carries at most, in bytes: 65,535
/// with its tag.
const MESSAGE: usize = 65_535 - 16;

/// How much is written before a sync, in MiB, as the block store does it.
const SYNC: usize = 16;

/// What one core does, in MiB per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floors {
    hash: f64,
    noise: f64,
    tls: f64,
    write: f64,
}

impl Floors {
    /// Measures them.
    pub(crate) fn measure(place: &Place, scale: &Scale) -> Result<Self> {
        let block = data::bytes(1, MIB);
        Ok(Self {
            hash: rate(scale, || hash(&block, scale.mib))?,
            noise: rate(scale, || encrypt(&CHACHA20_POLY1305, &block, scale.mib))?,
            tls: rate(scale, || encrypt(&AES_128_GCM, &block, scale.mib))?,
            write: rate(scale, || write(place, &block, scale.mib))?,
        })
    }

    /// The floors by themselves.
    pub(crate) fn rows(&self, table: &mut Table) {
        for (what, rate) in [
            ("SHA-256", self.hash),
            ("ChaCha20-Poly1305, the cipher of Noise", self.noise),
            ("AES-128-GCM, the cipher of TLS", self.tls),
            ("written in sequence, synced every 16 MiB", self.write),
        ] {
            table.alone(&format!("floor: {what}"), &format!("{rate:.0} MiB/s on one core"), "");
        }
    }

    /// The least for receiving and keeping `mib`: every byte is deciphered,
    /// hashed for its CID and for the manifest, and written.
    pub(crate) fn to_keep(self, mib: usize) -> String {
        let mib = mib as f64;
        format!(
            "CPU s: {:.1} to hash twice, {:.1} to decipher; {:.1} s to write",
            2.0 * mib / self.hash,
            mib / self.tls,
            mib / self.write
        )
    }
}

fn rate(scale: &Scale, work: impl Fn() -> Result<()>) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..scale.rounds {
        let begun = Instant::now();
        work()?;
        rates.push(scale.mib as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(median(&rates))
}

fn hash(block: &[u8], mib: usize) -> Result<()> {
    let mut hasher = Sha256::new();
    for _ in 0..mib {
        hasher.update(block);
    }
    std::hint::black_box(hasher.finalize());
    Ok(())
}

fn encrypt(cipher: &'static Algorithm, block: &[u8], mib: usize) -> Result<()> {
    let failed = |_| anyhow!("the cipher refuses its key or its data");
    let key = LessSafeKey::new(UnboundKey::new(cipher, &[7; 32][..cipher.key_len()]).map_err(failed)?);
    let mut message = block[..MESSAGE].to_vec();
    let messages = (mib * MIB / MESSAGE) as u64;
    for number in 0..messages {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut message).map_err(failed)?;
        let _ = std::hint::black_box(tag);
    }
    Ok(())
}

fn write(place: &Place, block: &[u8], mib: usize) -> Result<()> {
    let path = place.path().join("floor");
    let mut file = File::create(&path)?;
    for written in 1..=mib {
        file.write_all(block)?;
        if written % SYNC == 0 || written == mib {
            file.sync_data()?;
        }
    }
    drop(file);
    Ok(std::fs::remove_file(path)?)
}
