use std::collections::HashSet;

use pinfold_core::content::{self, BlockCid};

use super::super::derive;
use super::super::testing::{CBOR, Dag, PB, RAW, Random, cbor, inline};
use super::*;

/// A walk, what it asked for, and what it consumed.
struct Run<'a> {
    dag: &'a Dag,
    walk: Walk,
    asked: Vec<BlockCid>,
    seen: HashSet<BlockCid>,
    consumed: Vec<BlockHash>,
    reloads: usize,
    /// Whether its limits make it forget what it asked for.
    forgets: bool,
}

impl<'a> Run<'a> {
    fn new(dag: &'a Dag, root: &Cid, limits: Limits) -> Self {
        Self {
            dag,
            walk: Walk::new(root, limits, derive::inline),
            asked: Vec::new(),
            seen: HashSet::new(),
            consumed: Vec::new(),
            reloads: 0,
            forgets: limits.spans < Limits::default().spans,
        }
    }

    /// Consumes and looks ahead until nothing changes.
    fn advance(&mut self, window: usize) -> Result<(), WalkError> {
        loop {
            self.walk.consume()?;
            self.consumed.extend(self.walk.take_consumed());
            let mut out = Vec::new();
            let room = window.saturating_sub(self.asked.len());
            let ahead = self.walk.look_ahead(room, &|_| false, &mut out)?;
            for cid in out {
                let is_new = self.seen.insert(cid);
                assert!(is_new || self.forgets, "{cid} was asked for twice");
                if !self.asked.contains(&cid) {
                    self.asked.push(cid);
                }
            }
            match ahead {
                Ahead::Reload(reload) => {
                    self.reloads += 1;
                    let links = self.derive(&reload.cid).links;
                    self.walk.reloaded(&reload, links);
                }
                Ahead::Again => {}
                Ahead::Wait if self.walk.can_consume() => {}
                Ahead::Wait => return Ok(()),
            }
        }
    }

    fn derive(&self, cid: &Cid) -> Derived {
        derive::derive(cid.codec(), &self.dag.get(cid).unwrap()).unwrap()
    }

    fn answer(&mut self, index: usize) {
        let cid = content::of_block_cid(&self.asked.swap_remove(index));
        let block = self.derive(&cid);
        assert!(self.walk.found(&cid, block.clone()) || self.forgets);
        assert!(!self.walk.found(&cid, block), "found once");
    }

    /// Walks to the end, answering in the order that `choose` says.
    fn finish(
        &mut self,
        window: usize,
        mut choose: impl FnMut(&[BlockCid]) -> usize,
    ) -> Result<(), WalkError> {
        self.advance(window)?;
        while !self.walk.is_done() {
            let index = choose(&self.asked);
            self.answer(index);
            self.advance(window)?;
        }
        Ok(())
    }
}

/// Walks in a given order and compares everything with the reference.
fn check(
    dag: &Dag,
    root: &Cid,
    limits: Limits,
    window: usize,
    choose: impl FnMut(&[BlockCid]) -> usize,
) -> usize {
    let mut run = Run::new(dag, root, limits);
    run.finish(window, choose).unwrap();
    let (want, leaves) = dag.reference(root);
    let totals = run.walk.totals();
    assert_eq!((totals.blocks, totals.bytes), (want.blocks, want.bytes));
    assert!(run.walk.frames.iter().all(Option::is_none), "every frame is freed");
    assert_eq!((run.walk.link_memory, run.walk.pending.len()), (0, 0));
    let order: Vec<_> = leaves.iter().map(|leaf| leaf.multihash.resize::<64>().unwrap()).collect();
    assert_eq!(run.consumed, order);
    assert_eq!(run.walk.finish(), want);
    run.reloads
}

#[test]
fn any_order_of_arrival_gives_the_manifest_of_the_reference() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut dag = Dag::default();
        let root = dag.random(&mut random, 60);
        let window = 1 + random.below(40);
        check(&dag, &root, Limits::default(), window, |asked| random.below(asked.len()));
    }
}

#[test]
fn a_small_memory_and_look_ahead_change_nothing() {
    let mut reloads = 0;
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut dag = Dag::default();
        let root = dag.random(&mut random, 80);
        let (ahead, spans) = (1 + random.below(12), 1 + random.below(8));
        let limits = Limits { ahead, link_memory: 200, spans, ..Limits::default() };
        reloads += check(&dag, &root, limits, 16, |asked| random.below(asked.len()));
    }
    assert!(reloads > 100, "links were dropped and read again, {reloads} times");
}

#[test]
fn a_doubling_dag_of_64_levels_takes_65_visits() {
    let mut dag = Dag::default();
    let mut root = dag.leaf("bottom");
    for level in 0..64 {
        root = dag.node(level, &[root, root]);
    }
    let mut run = Run::new(&dag, &root, Limits::default());
    run.finish(1_000, |_| 0).unwrap();
    assert_eq!((run.seen.len(), run.consumed.len()), (65, 65));
    assert_eq!(run.walk.totals().blocks, 65);
}

#[test]
fn a_late_branch_keeps_nobody_from_looking_behind_it() {
    let mut dag = Dag::default();
    let late = dag.leaf("late");
    let branches: Vec<_> = (0..20)
        .map(|branch: u64| {
            let leaves: Vec<_> = (0..50).map(|n| dag.leaf(format!("{branch} {n}"))).collect();
            dag.node(branch, &leaves)
        })
        .collect();
    let links: Vec<_> = [late].into_iter().chain(branches).collect();
    let root = dag.node(99, &links);
    let late = content::block_cid(&late).unwrap();
    let mut run = Run::new(&dag, &root, Limits::default());
    run.advance(64).unwrap();
    while let Some(index) = run.asked.iter().position(|cid| *cid != late) {
        run.answer(index);
        run.advance(64).unwrap();
    }
    // All but the late one are known, and only the root is consumed.
    assert_eq!((run.seen.len(), run.consumed.len()), (1 + 1 + 20 + 1_000, 1));
    assert_eq!(run.walk.waiting().len(), 1_020);
    run.answer(0);
    run.advance(64).unwrap();
    assert!(run.walk.is_done());
    assert_eq!(run.walk.finish(), dag.reference(&root).0);
}

#[test]
fn what_is_asked_for_comes_in_the_order_of_the_walk() {
    let mut dag = Dag::default();
    let branches: Vec<_> = (0..10)
        .map(|branch: u64| {
            let leaves: Vec<_> = (0..10).map(|n| dag.leaf(format!("{branch} {n}"))).collect();
            dag.node(branch, &leaves)
        })
        .collect();
    let root = dag.node(99, &branches);
    let mut run = Run::new(&dag, &root, Limits::default());
    run.advance(10).unwrap();
    run.answer(0);
    run.advance(10).unwrap();
    // All branches arrive, the last one first, and then one window is wanted.
    let want: Vec<_> =
        (0..10).map(|n| content::block_cid(&dag.leaf_of(&format!("0 {n}"))).unwrap()).collect();
    while !run.asked.is_empty() {
        let cid = content::of_block_cid(&run.asked.pop().unwrap());
        let block = run.derive(&cid);
        run.walk.found(&cid, block);
    }
    run.advance(10).unwrap();
    assert_eq!(run.asked, want);
}

impl Dag {
    fn leaf_of(&self, text: &str) -> Cid {
        self.clone().leaf(text)
    }
}

/// The manifest's own walk and this one accept the same depths.
#[test]
fn depths_are_those_of_the_manifest() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../core/tests/vectors/manifest.json")).unwrap();
    let cases = vectors["depths"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap();
        let mut dag = Dag::default();
        let leaf = dag.leaf("leaf");
        let mut top = leaf;
        for level in 1..=number("links") {
            let again = case["again"] == true && level == number("links");
            top = if again { dag.node(level, &[leaf, top]) } else { dag.node(level, &[top]) };
        }
        let limits = Limits { depth: u32::try_from(number("limit")).unwrap(), ..Limits::default() };
        let walked = Run::new(&dag, &top, limits).finish(8, |_| 0);
        assert_eq!(walked.is_ok(), case["accepted"] == true, "{case}");
    }
}

#[test]
fn limits_end_a_walk_with_their_name() {
    let walk = |dag: &Dag, root: &Cid, limits| Run::new(dag, root, limits).finish(8, |_| 0);
    let mut dag = Dag::default();
    let mut chain = dag.leaf("bottom");
    for level in 0..10 {
        chain = dag.node(level, &[chain]);
    }
    let limits = Limits::default();
    assert!(walk(&dag, &chain, Limits { depth: 10, ..limits }).is_ok());
    let deep = walk(&dag, &chain, Limits { depth: 9, ..limits }).unwrap_err();
    assert!(matches!(deep, WalkError::OverLimit { limit: 9, .. }), "{deep}");
    assert!(walk(&dag, &chain, Limits { blocks: 11, ..limits }).is_ok());
    let many = walk(&dag, &chain, Limits { blocks: 10, ..limits }).unwrap_err();
    assert!(matches!(many, WalkError::OverLimit { what: "blocks", .. }), "{many}");
}

#[test]
fn identity_cids_are_followed_and_never_asked_for() {
    let mut dag = Dag::default();
    let leaf = dag.leaf("leaf");
    let nested = inline(CBOR, &cbor(1, &[leaf]));
    let outer = inline(CBOR, &cbor(2, &[nested]));
    let root = dag.node(3, &[outer, inline(RAW, b"data"), leaf]);
    check(&dag, &root, Limits::default(), 8, |_| 0);
    // Also as a root: nothing but the leaf is a block.
    let mut run = Run::new(&dag, &outer, Limits::default());
    run.finish(8, |_| 0).unwrap();
    assert_eq!(run.consumed.len(), 1);
    let limits = Limits { nesting: 1, ..Limits::default() };
    let error = Run::new(&dag, &outer, limits).finish(8, |_| 0).unwrap_err();
    assert!(matches!(error, WalkError::OverLimit { limit: 1, .. }), "{error}");
    let error = Run::new(&dag, &inline(CBOR, &[0x83]), Limits::default()).finish(8, |_| 0).unwrap_err();
    assert!(matches!(error, WalkError::Inline(_)), "{error}");
}

#[test]
fn a_multihash_under_two_codecs_is_listed_once_and_followed() {
    let mut dag = Dag::default();
    let leaf = dag.leaf("leaf");
    let node = dag.node(1, &[leaf]);
    let as_raw = Cid::new_v1(RAW, *node.hash());
    let root = dag.node(2, &[as_raw, node]);
    check(&dag, &root, Limits::default(), 8, |_| 0);
    check(&dag, &root, Limits::default(), 8, |asked| asked.len() - 1);
}

#[test]
fn foreign_codecs_are_leaves_and_versions_make_no_difference() {
    let mut dag = Dag::default();
    let foreign = dag.add(0x78, b"a git object".to_vec());
    let file = dag.add(PB, Vec::new());
    let v0 = Cid::new_v0(*file.hash()).unwrap();
    let root = dag.node(1, &[foreign, v0, file]);
    let mut run = Run::new(&dag, &root, Limits::default());
    run.finish(8, |_| 0).unwrap();
    assert_eq!(run.consumed.len(), 3);
}

#[test]
fn denied_links_end_a_walk() {
    let mut dag = Dag::default();
    let bad = dag.leaf("bad");
    let root = dag.node(1, &[bad]);
    let mut run = Run::new(&dag, &root, Limits::default());
    run.advance(8).unwrap();
    run.answer(0);
    run.walk.consume().unwrap();
    let error = run.walk.look_ahead(8, &|cid| *cid == bad, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, WalkError::Denied(cid) if cid == bad), "{error}");
}

#[test]
fn a_long_chain_and_a_wide_block_take_little_memory() {
    let mut dag = Dag::default();
    let mut chain = dag.leaf("bottom");
    for level in 0..2_000 {
        let beside = dag.leaf(format!("beside {level}"));
        chain = dag.node(level, &[chain, beside]);
    }
    check(&dag, &chain, Limits::default(), 4, |asked| asked.len() - 1);
    // With 2,000 blocks to come back to, few are at hand.
    let limits = Limits { spans: 64, ahead: 16, ..Limits::default() };
    let mut run = Run::new(&dag, &chain, limits);
    run.finish(4, |_| 0).unwrap();
    assert!(run.walk.frames.len() < 200, "{}", run.walk.frames.len());
    assert_eq!(run.walk.finish(), dag.reference(&chain).0);
    let wide: Vec<_> = (0..3_000).map(|n| dag.leaf(format!("wide {n}"))).collect();
    let root = dag.node(1, &wide);
    let mut run = Run::new(&dag, &root, Limits { ahead: 100, ..Limits::default() });
    let mut most = 0;
    run.finish(50, |_| 0).unwrap();
    most = most.max(run.walk.frames.len());
    assert!(most <= 2 && run.walk.agenda.nodes.is_empty());
}
