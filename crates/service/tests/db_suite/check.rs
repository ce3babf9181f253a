//! The recount finds what differs: each row of [`PLANTED`] breaks one thing by
//! SQL, which exactly the named sentences must tell, and mends it again.

use std::collections::BTreeSet;

use crate::world::*;

crate::on_both!(each_planted_difference_is_told);

/// What is done to the database, how it is undone, and what must be said.
const PLANTED: &[(&str, &str, &[&str])] = &[
    (
        "UPDATE pin SET status = 1 WHERE seq = 0",
        "UPDATE pin SET status = 2 WHERE seq = 0",
        &["status of a pin", "tally"],
    ),
    (
        "UPDATE tally SET pinned = pinned + 1, queued = queued - 1 WHERE level = 0",
        "UPDATE tally SET pinned = pinned - 1, queued = queued + 1 WHERE level = 0",
        &["tally"],
    ),
    (
        "UPDATE tally SET failed = failed + 1 WHERE level = 2",
        "UPDATE tally SET failed = failed - 1 WHERE level = 2",
        &["tally"],
    ),
    ("UPDATE account SET used = used + 1", "UPDATE account SET used = used - 1", &["usage of an account"]),
    (
        "UPDATE account SET reserved = reserved + 1",
        "UPDATE account SET reserved = reserved - 1",
        &["usage of an account"],
    ),
    (
        "UPDATE holding SET pins = pins + 1",
        "UPDATE holding SET pins = pins - 1",
        &["pins and holds of a holding"],
    ),
    (
        "UPDATE holding SET charged = charged + 1",
        "UPDATE holding SET charged = charged - 1",
        &["usage of an account", "charge of a holding"],
    ),
    (
        "UPDATE content SET stored = stored + 1",
        "UPDATE content SET stored = stored - 1",
        &["copies of a content"],
    ),
    (
        "UPDATE allocation SET state = 0 WHERE state = 1",
        "UPDATE allocation SET state = 1 WHERE state = 0",
        &["copies of a content"],
    ),
    (
        "UPDATE account SET next_seq = next_seq - 1",
        "UPDATE account SET next_seq = next_seq + 1",
        &["numbering of an account"],
    ),
    (
        "UPDATE account SET last_created = last_created - 1",
        "UPDATE account SET last_created = last_created + 1",
        &["numbering of an account"],
    ),
    (
        "UPDATE pin SET created = created - 1000 WHERE seq = 1",
        "UPDATE pin SET created = created + 1000 WHERE seq = 1",
        &["order of two pins of an account"],
    ),
];

async fn each_planted_difference_is_told(world: World) {
    let (db, mut node, ann) = world.with_node(1 << 30).await;
    for content in [1, 2] {
        let made = db.add_pin(pin(ann.id, content)).await.unwrap();
        node.store(&db, &made, 10_000).await;
    }
    assert_sound(&db).await;
    for (planted, undone, told) in PLANTED {
        world.execute(planted).await;
        let report = db.check().await.unwrap();
        let sentences = report.differences.iter().filter_map(|difference| difference.split(" (").next());
        assert_eq!(
            sentences.collect::<BTreeSet<_>>(),
            BTreeSet::from_iter(told.iter().copied()),
            "{planted}"
        );
        world.execute(undone).await;
        assert_sound(&db).await;
    }
}
