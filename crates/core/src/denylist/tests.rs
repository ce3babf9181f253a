use super::*;
use crate::content::parse as cid;

/// Rules of the kinds that the specification's own test list has.
const LIST: &str = "\
version: 1
name: \"Test\"
hints:
  gateway_status: 410
---
# rule 1
/ipfs/bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq
# rule 2
/ipfs/QmdWFA9FL52hx3j9EJZPQP1ZUH8Ygi5tLCX2cRDs6knSf8/* hint:value other=1
# rule 3
/ipfs/Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2/test*
# rule 4
/ipfs/QmTuvSQbEDR3sarFAN9kAeXBpiBCyYYNxdxciazBba11eC/test/*

# rule 5
/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked*
!/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blockednot
!/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked/not
!/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked/exceptions*
# rules 6 to 8
/ipns/domain.example
/ipns/domain2.example/path
/ipns/k51qzi5uqu5dhmzyv3zac033i7rl9hkgczxyl81lwoukda2htteop7d3x0y1mf
# rule 10
//d9d295bde21f422d471a90f2a37ec53049fdf3e5fa3ee2e8f20e10003da429e7
//6ef262a67f2c7caa9722b0fe46aced2f1559c749eab2bcf2f2701f43f802e900
//fb5a70b1aade810d21e8195a0da05f40ebd099e4b4d6bf088dc604e4fcf34263
# rule 11
//3f8b9febd851873b3774b937cce126910699ceac56e72e64b866f8e258d09572
# rule 12
//QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM
# rule 13
//gW813G35CnLsy7gRYYHuf63hrz71U1xoLFDVeV7actx6oX
# rule 14
//QmX6zeaAb8mC285YbXe4ac7LmX3jvrHBiFrw8kNnCM1bk4
//QmcwfDuZYijxztHVR7w71WtdDaETsrGUU3ARWbNiYD3Hhp
//QmdGtYErkPjfpUPjVMUypoX8XTE9PUTBBF6KE9AwWaBs1e
//QmQouNeftXbxGRt4U8s838diCuMPPHCfpHTR5w8bRREs9d
";

fn list() -> Denylist {
    let (list, errors) = Denylist::parse(LIST);
    assert_eq!(errors, []);
    assert_eq!(list.len(), 21);
    list
}

/// Whether a path as gateways have it is denied.
fn denied(list: &Denylist, path: &str) -> bool {
    let path = path.strip_prefix("/ipfs/").unwrap();
    let (root, rest) = path.split_once('/').unwrap_or((path, ""));
    list.is_denied(&cid(root).unwrap(), rest)
}

fn check(list: &Denylist, want: bool, paths: &[&str]) {
    for path in paths {
        assert_eq!(denied(list, path), want, "{path}");
    }
}

#[test]
fn a_cid_is_denied_by_its_multihash_without_the_paths_below() {
    let list = list();
    let writings = [
        "/ipfs/bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq",
        "/ipfs/bafkreihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq",
        "/ipfs/QmesfgDQ3q6prBy2Kg2gKbW4MAGuWiRP2DVuGA5MZSERLo",
    ];
    check(&list, true, &writings);
    for path in writings {
        check(&list, true, &[&format!("{path}/")]);
        check(&list, false, &[&format!("{path}/sub")]);
    }
    check(&list, false, &["/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"]);
}

#[test]
fn paths_are_denied_one_by_one_or_by_what_they_begin_with() {
    let list = list();
    let all = "/ipfs/QmdWFA9FL52hx3j9EJZPQP1ZUH8Ygi5tLCX2cRDs6knSf8";
    check(&list, true, &[all, &format!("{all}/a/b"), &format!("{all}/z/"), &format!("{all}/z")]);
    for root in
        ["QmTuvSQbEDR3sarFAN9kAeXBpiBCyYYNxdxciazBba11eC", "Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2"]
    {
        let path = |rest: &str| format!("/ipfs/{root}{rest}");
        check(&list, true, &[&path("/test"), &path("/test2"), &path("/test/one")]);
        check(&list, false, &[&path(""), &path("/tes"), &path("/one/test")]);
    }
}

#[test]
fn the_last_rule_that_matches_decides() {
    let list = list();
    let path = |rest: &str| format!("/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/{rest}");
    for rest in ["blocked", "blocked2", "blocked/notthis"] {
        check(&list, true, &[&path(rest)]);
    }
    for rest in
        ["blockednot", "blocked/not", "blocked/exceptions", "blocked/exceptions2", "blocked/exceptions/one"]
    {
        check(&list, false, &[&path(rest)]);
    }

    let root = "bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";
    for (rules, want) in [
        (["/ipfs/ROOT", "!/ipfs/ROOT"], false),
        (["!/ipfs/ROOT", "/ipfs/ROOT"], true),
        (["/ipfs/ROOT/*", "!/ipfs/ROOT"], false),
        (["!/ipfs/ROOT", "/ipfs/ROOT/*"], true),
        (["!/ipfs/ROOT/*", "/ipfs/ROOT"], true),
    ] {
        let (list, errors) = Denylist::parse(&rules.join("\n").replace("ROOT", root));
        assert_eq!((list.is_denied(&cid(root).unwrap(), ""), errors), (want, vec![]), "{rules:?}");
    }
}

#[test]
fn a_later_list_overrides_an_earlier_one_across_forms() {
    let root = cid("bafybeidjwik6im54nrpfg7osdvmx7zojl5oaxqel5cmsz46iuelwf5acja").unwrap();
    let mut list = list();
    assert!(list.is_denied(&root, ""));
    assert_eq!(list.add(&format!("version: 1\n---\n!/ipfs/{root}\n")), []);
    assert!(!list.is_denied(&root, ""));
    assert_eq!(list.add("//QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM"), []);
    assert!(list.is_denied(&root, ""));
}

#[test]
fn legacy_double_hashes_deny_one_cid_or_path() {
    let list = list();
    let root = "/ipfs/bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e";
    check(&list, true, &[root, &format!("{root}/"), &format!("{root}/path")]);
    check(&list, false, &[&format!("{root}/path2")]);
}

#[test]
fn double_hashes_deny_by_multihash() {
    let list = list();
    check(
        &list,
        true,
        &[
            "/ipfs/bafybeidjwik6im54nrpfg7osdvmx7zojl5oaxqel5cmsz46iuelwf5acja",
            "/ipfs/QmVTF1yEejXd9iMgoRTFDxBv7HAz9kuZcQNBzHrceuK9HR",
            "/ipfs/bafyb4ieqht3b2rssdmc7sjv2cy2gfdilxkfh7623nvndziyqnawkmo266a/path",
            "/ipfs/f01701e20903cf61d46521b05f926ba1634628d0bba8a7ffb5b6d5a3ca310682ca63b5ef0/path",
        ],
    );
    check(
        &list,
        false,
        &[
            "/ipfs/bafyb4ieqht3b2rssdmc7sjv2cy2gfdilxkfh7623nvndziyqnawkmo266a/",
            "/ipfs/bafyb4ieqht3b2rssdmc7sjv2cy2gfdilxkfh7623nvndziyqnawkmo266a/path2",
            "/ipfs/f01701e20903cf61d46521b05f926ba1634628d0bba8a7ffb5b6d5a3ca310682ca63b5ef0/path2",
        ],
    );
}

#[test]
fn empty_blocks_and_directories_are_never_denied() {
    for text in [
        "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
        "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
        "bafyaabakaieac",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        "bafkqaaa",
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
        "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua",
        "baguqeeraiqjw7i2vwntyuekgvulpp2det2kpwt6cd7tx5ayqybqpmhfk76fa",
    ] {
        let empty = cid(text).unwrap();
        let hashed = key::sha256(format!("{}/", Cid::new_v1(empty.codec(), *empty.hash())).as_bytes());
        let rules = format!("/ipfs/{text}\n//{}", data_encoding::HEXLOWER.encode(&hashed));
        let (list, errors) = Denylist::parse(&rules);
        assert_eq!(errors, [LineError { line: 1, error: RuleError::Harmless }], "{text}");
        assert!(!list.is_denied(&empty, ""), "{text}");
    }
}

#[test]
fn paths_are_percent_encoded_and_stars_may_be_meant() {
    let root = "bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";
    let (list, errors) = Denylist::parse(&format!(
        "/ipfs/{root}/a%20b%2Fc\n/ipfs/{root}/st%2A\r\n/ipfs/{root}/%C3%BC*\n/ipfs/{root}/a+b\n"
    ));
    assert_eq!(errors, []);
    let root = cid(root).unwrap();
    for path in ["a b/c", "/a b/c/", "st*", "ü", "über", "a+b"] {
        assert!(list.is_denied(&root, path), "{path}");
    }
    for path in ["", "a b", "star", "u", "a%20b%2Fc"] {
        assert!(!list.is_denied(&root, path), "{path}");
    }
}

#[test]
fn lines_that_are_no_rules_are_reported_and_the_others_hold() {
    let root = "bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";
    let text = format!(
        "name: x\n---\nnonsense\n/my/path\n/ipfs/\n/ipfs/nocid\n/ipns/\n//zz\n//00\n/ipfs/{root}/%ff\n!\n   \n /ipfs/{root} \n"
    );
    let (list, errors) = Denylist::parse(&text);
    let lines: Vec<_> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(list.len(), 1);
    assert!(list.is_denied(&cid(root).unwrap(), ""));
}

#[test]
fn a_later_version_is_refused_whole_and_rules_are_never_taken_for_a_header() {
    let rule = "/ipfs/bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";
    let (list, errors) = Denylist::parse(&format!("version: 2\n---\n{rule}\n"));
    assert!(list.is_empty());
    assert_eq!(errors, [LineError { line: 1, error: RuleError::Version("2".into()) }]);
    for (text, count, wrong) in [
        (format!("---\n{rule}"), 1, 0),
        (format!("version: 1 # now\n---\n{rule}"), 1, 0),
        (format!("version: '1'\r\n---\r\n{rule}"), 1, 0),
        (format!("{rule}\nversion: 7\n---\n{rule}"), 2, 2),
        (format!("{}\n---\n{rule}", "# long\n".repeat(200_000)), 1, 1),
    ] {
        let (list, errors) = Denylist::parse(&text);
        assert_eq!((list.len(), errors.len()), (count, wrong));
    }
}

#[test]
fn lines_errors_and_functions_are_bounded() {
    let long = format!("/ipfs/{}", "a".repeat(MAX_LINE));
    assert_eq!(Denylist::parse(&long).1, [LineError { line: 1, error: RuleError::TooLong }]);
    assert_eq!(Denylist::parse(&"x\n".repeat(5_000)).1.len(), MAX_ERRORS);
    let mut list = Denylist::default();
    for length in 20..20 + MAX_DOUBLE_HASHES + 2 {
        let hash = Multihash::wrap(0x1e, &vec![1; length]).unwrap();
        let text = ::cid::multibase::Base::Base58Btc.encode(hash.to_bytes());
        let want = if length < 20 + MAX_DOUBLE_HASHES { Ok(()) } else { Err(RuleError::TooManyFunctions) };
        assert_eq!(list.add_line(&format!("//{text}")), want);
    }
}

#[test]
fn a_block_of_unknown_codec_is_found_in_every_form() {
    use crate::links::Codec;
    for codec in Codec::ALL {
        let block = Cid::new_v1(codec.code(), crate::hash::multihash(0x12, b"block").unwrap());
        let legacy = key::sha256(format!("{block}/").as_bytes());
        let text = ::cid::multibase::Base::Base58Btc.encode(block.hash().to_bytes());
        let double = crate::hash::multihash(0x12, text.as_bytes()).unwrap().to_bytes();
        let double = ::cid::multibase::Base::Base58Btc.encode(double);
        for rule in [
            format!("/ipfs/{block}"),
            format!("//{}", data_encoding::HEXLOWER.encode(&legacy)),
            format!("//{double}"),
        ] {
            let (list, errors) = Denylist::parse(&rule);
            assert_eq!(errors, []);
            assert!(list.is_block_denied(block.hash()), "{rule}");
            let (list, _) = Denylist::parse(&format!("{rule}\n!/ipfs/{block}"));
            assert!(!list.is_block_denied(block.hash()), "{rule} is lifted");
        }
    }
    let other = crate::hash::multihash(0x12, b"other").unwrap();
    assert!(!list().is_block_denied(&other));
}

#[test]
fn paths_that_rules_deny_by_name_are_told() {
    let root = cid("QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK").unwrap();
    assert_eq!(list().denied_paths(&root).collect::<Vec<_>>(), [("blocked", true)]);
    let root = cid("QmTuvSQbEDR3sarFAN9kAeXBpiBCyYYNxdxciazBba11eC").unwrap();
    assert_eq!(list().denied_paths(&root).collect::<Vec<_>>(), [("test", true)]);
    let none = cid("bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq").unwrap();
    assert_eq!(list().denied_paths(&none).count(), 0);
}
