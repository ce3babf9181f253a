use super::*;

const STATES: [ContentState; 5] = [
    ContentState::Waiting,
    ContentState::Fetching,
    ContentState::Held,
    ContentState::Lost,
    ContentState::Failed(Reason::InvalidBlock),
];

/// Every combination of facts about a pin that has not ended and has no
/// verdict: (content, deadline passed, was pinned, has its turn).
fn expected(content: ContentState, deadline: bool, was_pinned: bool, turn: bool) -> (Status, Option<Reason>) {
    use ContentState as C;
    use Status as S;
    match (content, deadline, was_pinned, turn) {
        (C::Failed(reason), _, _, _) => (S::Failed, Some(reason)),
        (C::Held, _, _, _) => (S::Pinned, None),
        (C::Waiting | C::Fetching | C::Lost, _, true, _) => (S::Pinning, None),
        (C::Waiting | C::Fetching | C::Lost, true, false, _) => (S::Failed, Some(Reason::Expired)),
        (C::Waiting, false, false, _) => (S::Queued, None),
        (C::Fetching | C::Lost, false, false, true) => (S::Pinning, None),
        (C::Fetching | C::Lost, false, false, false) => (S::Queued, None),
    }
}

fn all_facts() -> impl Iterator<Item = Facts> {
    STATES.into_iter().flat_map(|content| {
        (0..8_u8).map(move |bits| Facts {
            deadline_passed: bits & 1 != 0,
            was_pinned: bits & 2 != 0,
            has_turn: bits & 4 != 0,
            ..Facts::of(content)
        })
    })
}

#[test]
fn the_status_follows_from_the_facts() {
    for facts in all_facts() {
        let want = expected(facts.content, facts.deadline_passed, facts.was_pinned, facts.has_turn);
        assert_eq!(derive(&facts), want, "{facts:?}");
    }
}

#[test]
fn a_verdict_fails_the_pin_whatever_the_content_is() {
    for facts in all_facts() {
        let denied = Facts { verdict: Verdict::Denied, ..facts };
        assert_eq!(derive(&denied), (Status::Failed, Some(Reason::Denied)));
        let over = Facts { verdict: Verdict::OverQuota, ..facts };
        assert_eq!(derive(&over), (Status::Failed, Some(Reason::OverQuota)));
    }
}

#[test]
fn a_pin_that_failed_is_not_revived() {
    for facts in all_facts() {
        for verdict in [Verdict::None, Verdict::OverQuota, Verdict::Denied] {
            let ended = Facts { ending: Ending::Failed(Reason::Expired), verdict, ..facts };
            assert_eq!(derive(&ended), (Status::Failed, Some(Reason::Expired)));
        }
    }
}

#[test]
fn words_are_those_of_the_interface_and_read_back() {
    for status in Status::ALL {
        assert_eq!(Status::parse(status.as_str()), Some(status));
        assert_eq!(serde_json::to_string(&status).unwrap(), format!("{:?}", status.as_str()));
    }
    for reason in Reason::ALL {
        assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        assert_eq!(serde_json::to_string(&reason).unwrap(), format!("{:?}", reason.as_str()));
    }
    assert_eq!(Status::parse("Pinned"), None);
}

#[test]
fn every_reason_has_a_sentence() {
    for status in Status::ALL {
        for reason in Reason::ALL.into_iter().map(Some).chain([None]) {
            let text = sentence(status, reason, &Progress::default());
            assert!(text.ends_with('.') && text.len() > 6, "{status:?} {reason:?}: {text}");
        }
    }
}

#[test]
fn sentences_tell_what_is_known() {
    let progress = Progress {
        blocks: 12,
        bytes: 1_234_567,
        total_bytes: Some(20_000_000_000),
        replicas: 1,
        replicas_wanted: 3,
        attempts: 4,
        next_attempt: Some("2026-01-02T03:04:05.000Z"),
        quota: Some((19_999_999_999, 20_000_000_000)),
        ..Progress::default()
    };
    let check = |status, reason, want: &str| assert_eq!(sentence(status, reason, &progress), want);
    check(Status::Pinning, Some(Reason::Retrieving), "Retrieving: 12 blocks, 1.2 MB of 20.0 GB so far.");
    check(Status::Pinned, None, "Pinned: 1 of 3 copies are held.");
    check(
        Status::Pinning,
        Some(Reason::Replicating),
        "All 12 blocks, 1.2 MB are held; 1 of 3 copies are made.",
    );
    check(
        Status::Failed,
        Some(Reason::OverQuota),
        "The account uses 19.9 GB of its 20.0 GB. Remove pins or ask the operator for a larger quota, then pin it again.",
    );
    let text = sentence(Status::Pinning, Some(Reason::NoProviders), &progress);
    assert!(text.ends_with("Next attempt: 2026-01-02T03:04:05.000Z, after 4 attempts."), "{text}");
    let text = sentence(Status::Pinning, Some(Reason::InvalidBlock), &progress);
    assert!(text.contains("the search goes on") && text.contains("Next attempt"), "{text}");
}

#[test]
fn a_detail_follows_the_sentence() {
    let progress = Progress { detail: Some("Block bafy… is 3 MiB."), ..Progress::default() };
    let text = sentence(Status::Failed, Some(Reason::InvalidBlock), &progress);
    assert!(text.ends_with(" Block bafy… is 3 MiB."), "{text}");
}

#[test]
fn a_search_for_the_rest_does_not_say_that_the_root_is_missing() {
    let progress = Progress { blocks: 3, bytes: 2_215, ..Progress::default() };
    for reason in [Reason::Searching, Reason::NoProviders] {
        let text = sentence(Status::Pinning, Some(reason), &progress);
        assert!(text.contains("3 blocks, 2.2 kB so far") && !text.contains("root block"), "{text}");
    }
}
