//! Prints how fast blocks are committed to: MiB/s of plain SHA-256 and of
//! `chunk_root`, over blocks of 256 KiB. Run it with `--release`; an argument names
//! one of them.

use std::hint::black_box;
use std::time::Instant;

use pinfold_core::{hash, manifest};

const BLOCK: usize = 256 << 10;
const ROUNDS: usize = 2_000;

fn main() {
    let block: Vec<u8> = (0..BLOCK).map(|at| (at / 7) as u8).collect();
    let wanted = std::env::args().nth(1);
    let runs = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    if runs("sha2-256") {
        rate("sha2-256", || black_box(hash::multihash(hash::SHA2_256, black_box(&block)).is_ok()));
    }
    if runs("chunk_root") {
        rate("chunk_root", || black_box(manifest::chunk_root(black_box(&block))[0] == 0));
    }
}

fn rate(name: &str, work: impl Fn() -> bool) {
    let start = Instant::now();
    let hits = (0..ROUNDS).filter(|_| work()).count();
    let mib = ((ROUNDS * BLOCK) >> 20) as f64;
    assert!(hits <= ROUNDS);
    println!("{name}: {:.0} MiB/s", mib / start.elapsed().as_secs_f64());
}
