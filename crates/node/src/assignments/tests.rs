use pinfold_core::content;
use pinfold_node_api::MAX_ORIGINS;

use super::*;

const ROOT: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

fn id(content: i64, generation: i64) -> AllocationId {
    AllocationId { content, generation }
}

fn assignment(content: i64, generation: i64) -> Assignment {
    Assignment {
        allocation: id(content, generation),
        root: ROOT.into(),
        origins: vec!["/ip4/127.0.0.1/tcp/1".into(); 100],
        peers: Vec::new(),
        predecessor: None,
        fairness: 1,
        granted_bytes: 64 << 20,
        repair: false,
    }
}

fn release(content: i64, generation: i64) -> Release {
    Release { allocation: id(content, generation), root: ROOT.into() }
}

fn states(assignments: &Assignments) -> Vec<(i64, i64, State)> {
    let open = assignments.open_after(None, 100).unwrap();
    open.into_iter().map(|record| (record.content, record.generation, record.state)).collect()
}

#[test]
fn what_was_noted_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    {
        let assignments = Assignments::open(dir.path()).unwrap();
        let noted = assignments.note(vec![assignment(7, 1), assignment(-3, 1)], &[release(9, 4)]).unwrap();
        assert_eq!(noted.len(), 3);
        assert_eq!(noted[0].origins.len(), MAX_ORIGINS);
    }
    let assignments = Assignments::open(dir.path()).unwrap();
    let want = [(-3, 1, State::Open), (7, 1, State::Open), (9, 4, State::Releasing)];
    assert_eq!(states(&assignments), want);
    assert_eq!(assignments.open_after(Some(-3), 1).unwrap()[0].content, 7);
}

#[test]
fn a_database_that_could_not_be_written_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let assignments = Assignments::open(dir.path()).unwrap();
    assignments.note(vec![assignment(1, 1)], &[]).unwrap();
    let failed = assignments.change::<()>(|_| Err(fjall::Error::Poisoned.into()));
    assert!(failed.is_err());
    assert!(assignments.0.tables.read().is_none());
    assignments.note(vec![assignment(2, 1)], &[]).unwrap();
    assert_eq!(states(&assignments), [(1, 1, State::Open), (2, 1, State::Open)]);
}

#[test]
fn a_generation_replaces_older_ones_and_never_newer_ones() {
    let dir = tempfile::tempdir().unwrap();
    let assignments = Assignments::open(dir.path()).unwrap();
    assignments.note(vec![assignment(1, 2)], &[]).unwrap();
    assert!(assignments.note(vec![assignment(1, 1)], &[release(1, 1)]).unwrap().is_empty());
    assignments.set_state(id(1, 1), State::Held).unwrap();
    assert_eq!(states(&assignments), [(1, 2, State::Open)]);
    assignments.set_state(id(1, 2), State::Held).unwrap();
    // The same again keeps its state; a new one is to be reported anew.
    assert_eq!(assignments.note(vec![assignment(1, 2)], &[]).unwrap()[0].state, State::Held);
    assert_eq!(assignments.note(vec![assignment(1, 3)], &[]).unwrap()[0].state, State::Open);
    assignments.set_state(id(1, 3), State::Lost).unwrap();
    assert_eq!(assignments.note(vec![assignment(1, 4)], &[]).unwrap()[0].state, State::Lost);
    // Released and assigned anew in one answer: the newer one stays.
    let noted = assignments.note(vec![assignment(1, 5)], &[release(1, 4)]).unwrap();
    assert_eq!((noted.len(), noted[0].generation), (1, 5));
}

#[test]
fn settled_contents_are_held_and_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let assignments = Assignments::open(dir.path()).unwrap();
    assignments.note((1..=5).map(|content| assignment(content, 1)).collect(), &[]).unwrap();
    for content in [2, 3, 5] {
        assignments.set_state(id(content, 1), State::Held).unwrap();
        assignments.settle(id(content, 1)).unwrap();
    }
    assignments.set_state(id(4, 1), State::Stopped).unwrap();
    assert_eq!(states(&assignments), [(1, 1, State::Open)]);
    assert_eq!(assignments.held_after(2, 2).unwrap(), [id(3, 1), id(4, 1)]);
    let root = content::parse(ROOT).unwrap();
    assert!(assignments.by_root(ContentKey::of(&root).as_bytes()).unwrap().is_some());
    assignments.remove(id(1, 2)).unwrap();
    assert!(assignments.get(1).unwrap().is_some());
    assignments.remove(id(1, 1)).unwrap();
    assert_eq!(assignments.get(1).unwrap(), None);
}
