//! What a path's end is sent as: a block, a CAR, a document, a file, a page.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
};

use hyper::{
    HeaderMap, Response,
    header::{self, HeaderValue},
};
use pinfold_core::{content::Cid, links::Codec, unixfs::Node};

use super::{
    Shared,
    answer::{Entity, append_query, redirect},
    below,
    body::{Batches, Body},
    directory,
    file::Reader,
    format::{Car, Document, Format, RAW},
    headers, media,
    path::ContentPath,
    pending::Below,
    request::Asked,
    resolve::{self, Way},
    source::Unserved,
    walk::{self, Walk},
};

/// The file that stands for its directory.
const INDEX: &str = "index.html";
/// Batches that are read to look at how a file begins; one, unless its DAG is
/// made of very small blocks.
const MAX_SNIFFS: usize = 4;

/// Answers a request for content. Blocks the thread.
///
/// # Errors
/// When it cannot be served.
pub(super) fn content(
    shared: &Shared,
    asked: &Asked,
    path: &ContentPath,
) -> Result<Response<Body>, Unserved> {
    let way = resolve::resolve(&shared.source, path)?;
    let found = Found { shared, asked, path, way };
    match asked.negotiated.format {
        Format::Raw => found.raw(),
        Format::Car(car) => found.car(car),
        Format::Document(document) => found.document(document),
        Format::Deserialized => found.deserialized(),
    }
}

/// A path that was followed to its end.
struct Found<'a> {
    shared: &'a Shared,
    asked: &'a Asked,
    path: &'a ContentPath,
    way: Way,
}

impl Found<'_> {
    fn raw(&self) -> Result<Response<Body>, Unserved> {
        let last = *self.way.last();
        let entity = Entity {
            tag: format!("\"{last}.raw\""),
            media_type: RAW.into(),
            disposition: Some(self.attachment(&format!("{last}.bin"))),
            ..self.entity(self.shared.source.size(&last)?)
        };
        self.block(entity, &last)
    }

    /// An entity that is one block.
    fn block(&self, entity: Entity, cid: &Cid) -> Result<Response<Body>, Unserved> {
        entity.answer(self.asked, self.headers(), |range| {
            let block = self.shared.source.block(cid)?;
            let range = range.start as usize..range.end as usize;
            // The index and the block agree on its length, or it is damaged.
            let part = block.get(range).map(|part| block.slice_ref(part));
            part.map(Body::full).ok_or(Unserved::NotHeld(Box::new(*cid)))
        })
    }

    fn car(&self, car: Car) -> Result<Response<Body>, Unserved> {
        let last = *self.way.last();
        // Nothing begins that is known to have no end.
        self.shared.source.size(&last)?;
        let below = walk::below(&self.shared.source, &last, car)?;
        if below == Below::All {
            below::allow_way(&self.shared.source, &self.way, &self.path.segments)?;
        }
        let mut hasher = DefaultHasher::new();
        self.way.blocks.hash(&mut hasher);
        let tag = format!("\"{}.{last}.car.{:016x}.{}\"", car.scope, hasher.finish(), car.dups_text());
        let entity = Entity {
            tag,
            media_type: car.media_type(),
            disposition: Some(self.attachment(&format!("{last}.car"))),
            length: None,
            ..self.entity(0)
        };
        entity.answer(self.asked, self.headers(), |_| {
            let Shared { source, budget, readers, .. } = self.shared;
            let walk = Walk::new(source.clone(), budget, &self.way.blocks, below, car.dups)?;
            Ok(Body::stream(readers.clone(), Box::new(walk)))
        })
    }

    fn document(&self, wanted: Document) -> Result<Response<Body>, Unserved> {
        let last = *self.way.last();
        if Document::of(last.codec()).is_some_and(|found| found.is_also(wanted)) {
            return self.document_as(wanted);
        }
        let is_file = matches!(Codec::of(last.codec()), Some(Codec::Raw | Codec::DagPb));
        let is_plain = matches!(wanted, Document::Json | Document::Cbor);
        // Many clients accept JSON before anything else and mean no codec.
        if is_file && is_plain && !self.asked.negotiated.by_url {
            return self.deserialized();
        }
        if is_file && wanted == Document::Json && self.is_json_file(&last)? {
            return self.deserialized();
        }
        Err(Unserved::NotAcceptable(format!(
            "{last} is no {}, and nothing is converted here; ask for format=raw",
            wanted.name()
        )))
    }

    fn is_json_file(&self, cid: &Cid) -> Result<bool, Unserved> {
        match self.shared.source.node(cid)? {
            Node::File(file) => Ok(self.media_type(cid, file.size()) == Document::Json.media_type()),
            Node::Directory(_) | Node::Shard(_) | Node::Symlink(_) => Ok(false),
        }
    }

    fn document_as(&self, document: Document) -> Result<Response<Body>, Unserved> {
        let last = *self.way.last();
        let name = format!("{last}.{}", document.extension());
        // Browsers show JSON as text; the binary form is of no use in them.
        let is_shown = document.extension() == "json" && !self.asked.is_download();
        let name = self.asked.file_name().unwrap_or(&name);
        let entity = Entity {
            tag: format!("\"{last}.{}\"", document.name()),
            media_type: document.media_type().into(),
            disposition: Some(headers::disposition(if is_shown { "inline" } else { "attachment" }, name)),
            ..self.entity(self.shared.source.size(&last)?)
        };
        self.block(entity, &last)
    }

    fn deserialized(&self) -> Result<Response<Body>, Unserved> {
        let last = *self.way.last();
        if let Some(document) = Document::of(last.codec()) {
            return self.document_as(document);
        }
        match Codec::of(last.codec()) {
            Some(Codec::Raw) => self.file(&last, self.shared.source.size(&last)?, &last, self.name()),
            Some(Codec::DagPb) => match self.shared.source.node(&last)? {
                Node::File(file) => self.file(&last, file.size(), &last, self.name()),
                Node::Symlink(target) => self.symlink(&target),
                directory => self.directory(directory),
            },
            _ => Err(Unserved::NotAcceptable(format!(
                "{last} has a codec that is not shown here; ask for format=raw"
            ))),
        }
    }

    /// A file, under the tag of `tagged`: its own CID, or that of the
    /// directory which it stands for.
    fn file(
        &self,
        cid: &Cid,
        size: u64,
        tagged: &Cid,
        name: Option<&str>,
    ) -> Result<Response<Body>, Unserved> {
        let by_name = self.asked.file_name().or(name).and_then(media::by_name);
        let media_type = by_name.unwrap_or_else(|| self.sniff(cid, size));
        let is_sandboxed = !self.path.is_origin && !media::is_passive(media_type);
        let entity = Entity {
            tag: format!("\"{tagged}\""),
            media_type: media_type.into(),
            disposition: self.file_disposition(cid, name),
            policy: is_sandboxed.then_some(headers::SANDBOX),
            ..self.entity(size)
        };
        entity.answer(self.asked, self.headers(), |range| self.read(cid, size, range))
    }

    fn read(&self, cid: &Cid, size: u64, range: Range<u64>) -> Result<Body, Unserved> {
        let Shared { source, budget, readers, .. } = self.shared;
        let length = range.end - range.start;
        // The first batch is read at once: what is not there at all is said
        // with a status, and short files need no second turn.
        let mut reader = Reader::new(source.clone(), budget, cid, size, range)?;
        let first = reader.next()?;
        Ok(Body::begun(readers.clone(), first, Box::new(reader), length))
    }

    fn media_type(&self, cid: &Cid, size: u64) -> &'static str {
        let by_name = self.asked.file_name().or(self.name()).and_then(media::by_name);
        by_name.unwrap_or_else(|| self.sniff(cid, size))
    }

    /// Looks at how a file begins. Where that cannot be read, the rest may be
    /// wanted all the same.
    fn sniff(&self, cid: &Cid, size: u64) -> &'static str {
        let Shared { source, budget, .. } = self.shared;
        let length = size.min(media::SNIFFED as u64);
        let Ok(mut reader) = Reader::new(source.clone(), budget, cid, size, 0..length) else {
            return media::BYTES;
        };
        let mut first = Vec::new();
        for _ in 0..MAX_SNIFFS {
            let Ok(batch) = reader.next() else { return media::BYTES };
            batch.pieces.iter().for_each(|piece| first.extend_from_slice(piece));
            if batch.is_last {
                break;
            }
        }
        media::sniff(&first, first.len() as u64 == size)
    }

    fn symlink(&self, target: &[u8]) -> Result<Response<Body>, Unserved> {
        let entity = Entity { media_type: "inode/symlink".into(), ..self.entity(target.len() as u64) };
        entity.answer(self.asked, self.headers(), |range| {
            Ok(Body::full(target[range.start as usize..range.end as usize].to_vec()))
        })
    }

    fn directory(&self, directory: Node) -> Result<Response<Body>, Unserved> {
        if !self.path.trailing_slash {
            return Ok(redirect(&append_query(self.asked, self.path.directory())));
        }
        let source = &self.shared.source;
        let last = self.way.last();
        if let Some(index) = resolve::entry(source, &directory, INDEX)? {
            let names = [&self.path.segments[..], &[INDEX.to_owned()]].concat();
            source.allow(&self.path.root, &names.join("/"))?;
            source.allow(last, INDEX)?;
            if let Node::File(file) = source.node(&index)? {
                return self.file(&index, file.size(), last, Some(INDEX));
            }
        }
        let listing = directory::list(source, directory)?;
        let page = directory::page(self.path, &self.gateway(), &listing);
        let entity = Entity {
            tag: format!("\"DirIndex-{}_CID-{last}\"", directory::VERSION),
            media_type: "text/html; charset=utf-8".into(),
            cache: headers::GENERATED,
            policy: Some(headers::PAGE),
            ..self.entity(page.len() as u64)
        };
        entity.answer(self.asked, self.headers(), |range| {
            Ok(Body::full(page.into_bytes()[range.start as usize..range.end as usize].to_vec()))
        })
    }

    /// The gateway's own host, where this is a DAG's.
    fn gateway(&self) -> String {
        match (&self.shared.domain, self.path.is_origin) {
            (Some(domain), true) => {
                let port = self.asked.host.rsplit_once(':').map(|(_, port)| format!(":{port}"));
                format!("//{domain}{}", port.unwrap_or_default())
            }
            _ => String::new(),
        }
    }

    fn name(&self) -> Option<&str> {
        self.path.file_name()
    }

    /// What most answers have in common.
    fn entity(&self, length: u64) -> Entity {
        Entity {
            tag: format!("\"{}\"", self.way.last()),
            media_type: String::new(),
            cache: headers::IMMUTABLE,
            disposition: None,
            policy: None,
            length: Some(length),
        }
    }

    fn attachment(&self, name: &str) -> String {
        headers::disposition("attachment", self.asked.file_name().unwrap_or(name))
    }

    fn file_disposition(&self, cid: &Cid, name: Option<&str>) -> Option<String> {
        let (given, cid) = (self.asked.file_name(), cid.to_string());
        let is_download = self.asked.is_download();
        let kind = if is_download { "attachment" } else { "inline" };
        (is_download || given.is_some()).then(|| headers::disposition(kind, given.or(name).unwrap_or(&cid)))
    }

    /// Where this was found, and whether another form of it was asked for.
    fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        headers::set(&mut map, headers::X_IPFS_PATH, &self.path.named());
        let roots: Vec<String> = self.way.roots.iter().map(ToString::to_string).collect();
        let roots = roots.join(",");
        if roots.len() <= headers::MAX_ROOTS {
            headers::set(&mut map, headers::X_IPFS_ROOTS, &roots);
        }
        if self.asked.negotiated.by_accept {
            let location = format!("{}?{}", self.path.local(), self.asked.explicit_query());
            headers::set(&mut map, header::CONTENT_LOCATION, &location);
        }
        if !self.asked.negotiated.by_url {
            map.insert(header::VARY, HeaderValue::from_static("accept"));
        }
        map
    }
}
