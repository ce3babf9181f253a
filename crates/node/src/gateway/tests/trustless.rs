//! Blocks and CARs.

use pinfold_core::content::Cid;

use super::{
    Served,
    dag::{self, Dag},
};

const CAR: &str = "application/vnd.ipld.car";
const RAW: &str = "application/vnd.ipld.raw";
const ASCII: &[u8] = b"hello application/vnd.ipld.car\n";

/// A directory `/subdir` with one file of one block and one of five.
struct Tree {
    dag: Dag,
    root: Cid,
    subdir: Cid,
    ascii: Cid,
    multi: Cid,
    chunks: Vec<Cid>,
}

fn tree() -> Tree {
    let mut dag = Dag::default();
    let ascii = dag.leaf(ASCII);
    let (multi, chunks) = dag.file(&dag::bytes(1_026), 256);
    let subdir = dag.dir(&[("ascii.txt", ascii), ("multiblock.txt", multi)]);
    let root = dag.dir(&[("subdir", subdir)]);
    Tree { dag, root, subdir, ascii, multi, chunks }
}

#[tokio::test]
async fn blocks_are_sent_as_they_are() {
    let Tree { dag, root, subdir, ascii, .. } = tree();
    let served = Served::new(&dag).await;
    for (path, headers) in [
        (format!("/ipfs/{ascii}?format=raw"), &[][..]),
        (format!("/ipfs/{ascii}"), &[("Accept", RAW)]),
        (format!("/ipfs/{ascii}?format=raw"), &[("Accept", CAR)]),
        (format!("/ipfs/{root}/subdir/ascii.txt?format=raw"), &[]),
    ] {
        let reply = served.get_with(&path, headers).await;
        assert_eq!((reply.status, &reply.body[..]), (200, ASCII), "{path}");
        assert_eq!(reply.header("content-type"), RAW);
        assert_eq!(reply.header("content-length"), ASCII.len().to_string());
        assert_eq!(reply.header("content-disposition"), format!("attachment; filename=\"{ascii}.bin\""));
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("etag"), format!("\"{ascii}.raw\""));
        assert_eq!(reply.header("cache-control"), "public, max-age=29030400, immutable");
        assert_eq!(reply.header("x-ipfs-path"), path.split('?').next().expect("a path"));
        assert!(reply.header("x-ipfs-roots").ends_with(&ascii.to_string()));
        let head = served.send("HEAD", &path, headers).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in ["content-type", "content-length", "etag", "content-disposition", "x-ipfs-roots"] {
            assert_eq!(head.header(name), reply.header(name), "{name} of HEAD {path}");
        }
    }
    let directory = served.get(&format!("/ipfs/{root}/subdir?format=raw")).await;
    assert_eq!(directory.body, dag.blocks[&subdir]);
    let named = served.get(&format!("/ipfs/{ascii}?format=raw&filename=foobar.bin")).await;
    assert_eq!(named.header("content-disposition"), "attachment; filename=\"foobar.bin\"");
}

#[tokio::test]
async fn ranges_of_blocks_follow_http() {
    let Tree { dag, ascii, .. } = tree();
    let served = Served::new(&dag).await;
    let path = format!("/ipfs/{ascii}?format=raw");
    let check = async |range: &str, expected: std::ops::Range<usize>| {
        let reply = served.get_with(&path, &[("Range", range)]).await;
        assert_eq!((reply.status, &reply.body[..]), (206, &ASCII[expected.clone()]), "{range}");
        let text = format!("bytes {}-{}/{}", expected.start, expected.end - 1, ASCII.len());
        assert_eq!(reply.header("content-range"), text);
        assert_eq!(reply.header("content-type"), RAW);
    };
    check("bytes=6-16", 6..17).await;
    check("bytes=-3", ASCII.len() - 3..ASCII.len()).await;
    check("bytes=6-16,0-4", 6..17).await;
    let beyond = served.get_with(&path, &[("Range", "bytes=100-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */31"));
    let tag = format!("\"{ascii}.raw\"");
    let same = served.get_with(&path, &[("Range", "bytes=0-0"), ("If-Range", &tag)]).await;
    let other = served.get_with(&path, &[("Range", "bytes=0-0"), ("If-Range", "\"x\"")]).await;
    assert_eq!((same.status, other.status), (206, 200));
}

#[tokio::test]
async fn the_probe_is_always_there() {
    let served = Served::new(&Dag::default()).await;
    for (query, media_type) in [("?format=raw", RAW), ("?format=car", CAR), ("", "text/plain")] {
        for method in ["GET", "HEAD"] {
            let reply = served.send(method, &format!("/ipfs/bafkqaaa{query}"), &[]).await;
            assert_eq!(reply.status, 200, "{method} {query}");
            assert!(reply.header("content-type").starts_with(media_type), "{query}");
            if query == "?format=car" && method == "GET" {
                assert!(reply.car().is_empty());
            }
        }
    }
}

/// The CIDs of a CAR, asked for by query and by header alike.
async fn car(served: &Served, path: &str) -> Vec<Cid> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let by_query = served.get(&format!("{path}?format=car&{query}")).await;
    let by_header = served.get_with(&format!("{path}?{query}"), &[("Accept", CAR)]).await;
    for reply in [&by_query, &by_header] {
        assert_eq!(reply.status, 200, "{path}?{query}: {:?}", String::from_utf8_lossy(&reply.body));
        assert_eq!(reply.header("content-type"), "application/vnd.ipld.car; version=1; order=dfs; dups=n");
        assert_eq!(reply.header("accept-ranges"), "none");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        let disposition = reply.header("content-disposition");
        assert!(disposition.starts_with("attachment; filename=\"") && disposition.ends_with(".car\""));
        assert!(!reply.header("etag").is_empty());
    }
    assert_eq!(by_query.body, by_header.body);
    let head = served.head(&format!("{path}?format=car&{query}")).await;
    assert_eq!((head.status, head.header("etag")), (200, by_query.header("etag")));
    by_query.car()
}

#[tokio::test]
async fn a_car_has_the_way_and_what_the_scope_says() {
    let Tree { dag, root, subdir, ascii, multi, chunks } = tree();
    let served = Served::new(&dag).await;
    let check = async |path: &str, expected: &[Cid]| {
        assert_eq!(car(&served, &format!("/ipfs/{root}{path}")).await, expected, "{path}");
    };
    check("/subdir/ascii.txt", &[root, subdir, ascii]).await;
    check("/subdir?dag-scope=block", &[root, subdir]).await;
    check("/subdir/ascii.txt?dag-scope=block", &[root, subdir, ascii]).await;
    check("?dag-scope=entity", &[root]).await;
    check("/subdir?dag-scope=entity", &[root, subdir]).await;
    check("/subdir/ascii.txt?dag-scope=entity", &[root, subdir, ascii]).await;
    let file = [&[root, subdir, multi][..], &chunks].concat();
    check("/subdir/multiblock.txt?dag-scope=entity", &file).await;
    check("/subdir/multiblock.txt?dag-scope=all", &file).await;
    check("/subdir/multiblock.txt", &file).await;
    check("/subdir?dag-scope=all", &[&[root, subdir, ascii, multi][..], &chunks].concat()).await;
    let missing = served.get(&format!("/ipfs/{root}/subdir/none?format=car")).await;
    assert_eq!(missing.status, 404);
}

#[tokio::test]
async fn entity_bytes_take_the_fewest_blocks() {
    let Tree { dag, root, multi, chunks, .. } = tree();
    let served = Served::new(&dag).await;
    let check = async |bytes: &str, expected: std::ops::Range<usize>| {
        let path = format!("/ipfs/{multi}?entity-bytes={bytes}");
        let expected = [&[multi][..], &chunks[expected]].concat();
        assert_eq!(car(&served, &path).await, expected, "{bytes}");
        assert_eq!(car(&served, &format!("{path}&dag-scope=entity")).await, expected, "{bytes}");
    };
    check("0:*", 0..5).await;
    check("512:*", 2..5).await;
    check("512:1023", 2..4).await;
    check("512:-256", 2..4).await;
    check("-5:*", 3..5).await;
    check("-9999:*", 0..5).await;
    check("-9999:-3", 0..4).await;
    check("0:0", 0..1).await;
    assert_eq!(car(&served, &format!("/ipfs/{root}?dag-scope=entity&entity-bytes=0:9")).await, [root]);
    for bad in ["5000:*", "-1:-5", "x:1", "1"] {
        let reply = served.get(&format!("/ipfs/{multi}?format=car&entity-bytes={bad}")).await;
        assert_eq!(reply.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn what_is_missing_outside_of_the_range_does_not_matter() {
    let mut dag = Dag::default();
    let data = dag::bytes(3_072);
    let (file, chunks) = dag.file(&data, 1_024);
    dag.lose(&chunks[1]);
    let served = Served::new(&dag).await;
    assert_eq!(car(&served, &format!("/ipfs/{file}?entity-bytes=0:1000")).await, [file, chunks[0]]);
    assert_eq!(car(&served, &format!("/ipfs/{file}?entity-bytes=2200:*")).await, [file, chunks[2]]);
    for (range, expected) in [("bytes=997-1000", 997..1001), ("bytes=2200-2201", 2200..2202)] {
        let reply = served.get_with(&format!("/ipfs/{file}"), &[("Range", range)]).await;
        assert_eq!((reply.status, &reply.body[..]), (206, &data[expected]), "{range}");
    }
}

#[tokio::test]
async fn sharded_directories_are_walked() {
    let mut dag = Dag::default();
    let entries: Vec<(String, Cid)> = (0..400)
        .map(|number| {
            let content = format!("content {number}");
            (format!("{number}.txt"), dag.file(content.as_bytes(), 8).0)
        })
        .collect();
    let (root, shards) = dag.shards(16, &entries);
    let served = Served::new(&dag).await;
    let all = [&[root][..], &shards].concat();
    assert_eq!(car(&served, &format!("/ipfs/{root}?dag-scope=entity")).await, all);
    assert_eq!(car(&served, &format!("/ipfs/{root}?dag-scope=entity&entity-bytes=0:*")).await, all);
    for number in [0, 7, 399] {
        let (name, file) = &entries[number];
        let found = car(&served, &format!("/ipfs/{root}/{name}?dag-scope=block")).await;
        assert_eq!((found.first(), found.last()), (Some(&root), Some(file)));
        assert!(found[1..found.len() - 1].iter().all(|cid| shards.contains(cid)) && found.len() >= 3);
        let whole = car(&served, &format!("/ipfs/{root}/{name}")).await;
        assert_eq!(whole[..found.len()], found);
        assert!(whole.len() > found.len());
        assert_eq!(served.get(&format!("/ipfs/{root}/{name}")).await.text(), format!("content {number}"));
    }
    assert_eq!(served.get(&format!("/ipfs/{root}/400.txt")).await.status, 404);
}

#[tokio::test]
async fn documents_are_paths_and_leaves() {
    let mut dag = Dag::default();
    let single = dag.leaf(*b"single");
    let mut cbor = vec![0xa1, 0x65];
    cbor.extend(b"files");
    cbor.extend([0xa1, 0x66]);
    cbor.extend(b"single");
    cbor.extend(dag::cbor_link(&single));
    let document = dag.add(dag::CBOR, cbor.clone());
    let json = dag.add(dag::JSON, format!(r#"{{"list":[{{"/":"{document}"}}]}}"#));
    let root = dag.dir(&[("document", document), ("json", json)]);
    let served = Served::new(&dag).await;
    assert_eq!(car(&served, &format!("/ipfs/{document}/files/single")).await, [document, single]);
    assert_eq!(car(&served, &format!("/ipfs/{root}/document?dag-scope=entity")).await, [root, document]);
    let through = format!("/ipfs/{root}/json/list/0/files/single");
    assert_eq!(car(&served, &through).await, [root, json, document, single]);
    let file = served.get(&through).await;
    assert_eq!(file.text(), "single");
    assert_eq!(file.header("x-ipfs-roots"), format!("{root},{json},{document},{single}"));
    let inside = served.get(&format!("/ipfs/{document}/files")).await;
    let missing = served.get(&format!("/ipfs/{document}/files/none")).await;
    assert_eq!((inside.status, missing.status), (501, 404));

    let plain = served.get(&format!("/ipfs/{document}")).await;
    assert_eq!((plain.status, plain.body), (200, cbor));
    assert_eq!(plain.headers["content-type"], "application/vnd.ipld.dag-cbor");
    assert_eq!(plain.headers["content-disposition"], format!("attachment; filename=\"{document}.cbor\""));
    for (path, accept, status, media_type) in [
        (format!("/ipfs/{document}?format=cbor"), "*/*", 200, "application/cbor"),
        (format!("/ipfs/{json}?format=dag-json"), "*/*", 200, "application/vnd.ipld.dag-json"),
        (format!("/ipfs/{json}"), "application/json", 200, "application/json"),
        (format!("/ipfs/{document}?format=dag-json"), "*/*", 406, "text/plain; charset=utf-8"),
        (format!("/ipfs/{root}?format=dag-cbor"), "*/*", 406, "text/plain; charset=utf-8"),
        (format!("/ipfs/{single}"), "application/vnd.ipld.dag-json", 406, "text/plain; charset=utf-8"),
        (format!("/ipfs/{single}"), "application/json, text/plain, */*", 200, "text/plain; charset=utf-8"),
        (format!("/ipfs/{single}?format=tar"), "*/*", 400, "text/plain; charset=utf-8"),
    ] {
        let reply = served.get_with(&path, &[("Accept", accept)]).await;
        assert_eq!((reply.status, reply.header("content-type")), (status, media_type), "{path} {accept}");
    }
}

#[tokio::test]
async fn duplicates_are_sent_as_asked_for() {
    let mut dag = Dag::default();
    let ascii = dag.leaf(ASCII);
    let inline = dag::identity(dag::RAW, b"inline");
    let (multi, chunks) = dag.file(&dag::bytes(1_026), 256);
    let root = dag.dir(&[("a", ascii), ("b", ascii), ("c", inline), ("d", multi), ("e", multi)]);
    let served = Served::new(&dag).await;
    let path = format!("/ipfs/{root}");
    let once = [&[root, ascii, multi][..], &chunks].concat();
    let often = [&[root, ascii, ascii, multi][..], &chunks, &[multi], &chunks].concat();
    let check = async |query: &str, accept: &str, dups: &str| {
        let reply = served.get_with(&format!("{path}{query}"), &[("Accept", accept)]).await;
        let media_type = format!("application/vnd.ipld.car; version=1; order=dfs; dups={dups}");
        assert_eq!(reply.header("content-type"), media_type, "{query} {accept}");
        let expected = if dups == "y" { &often } else { &once };
        assert_eq!(&reply.car(), expected, "{query} {accept}");
    };
    check("", "application/vnd.ipld.car; version=1; order=dfs; dups=y", "y").await;
    check("", "application/vnd.ipld.car; version=1; order=dfs; dups=n", "n").await;
    check("", "application/vnd.ipld.car; order=unk", "n").await;
    check("?format=car", "application/vnd.ipld.car; dups=y", "y").await;
    check("?format=car&car-order=dfs", "application/vnd.ipld.car; order=unk", "n").await;
    check("?format=car&car-dups=y", "application/vnd.ipld.car; dups=n", "y").await;
    check("?format=car", RAW, "n").await;
    for bad in ["car-version=2", "car-order=bfs", "car-dups=x", "dag-scope=x"] {
        assert_eq!(served.get(&format!("{path}?format=car&{bad}")).await.status, 400, "{bad}");
    }
    let reply =
        served.get_with(&format!("/ipfs/{inline}"), &[("Accept", "application/vnd.ipld.car; dups=y")]).await;
    assert!(reply.car().is_empty());
}

#[tokio::test]
async fn a_range_over_repeated_parts_repeats_nothing_without_dups() {
    let mut dag = Dag::default();
    let leaf = dag.leaf(vec![7; 100]);
    // Ten levels of ten times the same: 10^11 bytes in eleven blocks.
    let (mut cid, mut size, mut all) = (leaf, 100, vec![leaf]);
    for _ in 0..9 {
        cid = dag.parts(&[(cid, size); 10]);
        size *= 10;
        all.insert(0, cid);
    }
    let served = Served::new(&dag).await;
    assert_eq!(car(&served, &format!("/ipfs/{cid}?dag-scope=entity")).await, all);
    assert_eq!(car(&served, &format!("/ipfs/{cid}?entity-bytes=1:-2")).await, all);
    assert_eq!(car(&served, &format!("/ipfs/{cid}")).await, all);
}

#[tokio::test]
async fn an_accepted_form_names_its_location() {
    let Tree { dag, root, .. } = tree();
    let served = Served::new(&dag).await;
    let location = async |path: &str, accept: &str| {
        let reply = served.get_with(path, &[("Accept", accept)]).await;
        reply.header("content-location").to_owned()
    };
    let base = format!("/ipfs/{root}/subdir");
    assert_eq!(location(&base, RAW).await, format!("{base}?format=raw"));
    assert_eq!(location(&format!("{base}?format=raw"), "*/*").await, "");
    let car = location(&format!("{base}?dag-scope=block"), "application/vnd.ipld.car; dups=y").await;
    assert_eq!(car, format!("{base}?format=car&car-version=1&car-order=dfs&car-dups=y&dag-scope=block"));
}
