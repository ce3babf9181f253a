//! A name server for the small network of one test: it answers questions for
//! A and TXT records over UDP from a zone on its command line, and knows
//! nobody else to ask. A program of its own, because it has to run in a
//! network namespace.
//!
//! `nameserver ADDRESS:PORT NAME=A:IPV4… NAME=TXT:TEXT…`

use std::{
    env,
    error::Error,
    net::{Ipv4Addr, UdpSocket},
};

/// Types of records.
const A: u16 = 1;
const TXT: u16 = 16;

/// The longest question: what a message over UDP has without extensions.
const LONGEST: usize = 512;

/// Where the question begins, behind the header.
const HEADER: usize = 12;

/// How long what it says may be kept, in seconds.
const TIME_TO_LIVE: u32 = 60;

/// A record of the zone.
struct Record {
    name: String,
    kind: u16,
    data: Vec<u8>,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    name: String,
    kind: u16,
    /// Where it ends in the message.
    end: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let socket = UdpSocket::bind(arguments.next().ok_or("usage: nameserver ADDRESS:PORT RECORD…")?)?;
    let zone = arguments.map(|text| record(&text)).collect::<Result<Vec<_>, _>>()?;
    println!("names are served");
    let mut query = [0; LONGEST];
    loop {
        let (length, from) = socket.recv_from(&mut query)?;
        if let Some(answer) = answer(&zone, &query[..length]) {
            socket.send_to(&answer, from)?;
        }
    }
}

fn record(text: &str) -> Result<Record, Box<dyn Error>> {
    let (name, rest) = text.split_once('=').ok_or("a record is NAME=TYPE:VALUE")?;
    let (kind, value) = rest.split_once(':').ok_or("a record is NAME=TYPE:VALUE")?;
    let (kind, data) = match kind {
        "A" => (A, value.parse::<Ipv4Addr>()?.octets().to_vec()),
        "TXT" => (TXT, [&[u8::try_from(value.len())?], value.as_bytes()].concat()),
        _ => return Err(format!("records of type {kind} are not served").into()),
    };
    Ok(Record { name: name.to_lowercase(), kind, data })
}

/// The answer to a message, or none where it is no question.
fn answer(zone: &[Record], query: &[u8]) -> Option<Vec<u8>> {
    const AUTHORITATIVE: u16 = 0x8580;
    const NO_SUCH_NAME: u16 = 3;
    let question = question(query)?;
    let of_name = || zone.iter().filter(|record| record.name == question.name);
    let found: Vec<_> = of_name().filter(|record| record.kind == question.kind).collect();
    let flags = AUTHORITATIVE | if of_name().next().is_some() { 0 } else { NO_SUCH_NAME };
    let mut answer = query[..2].to_vec();
    for field in [flags, 1, u16::try_from(found.len()).ok()?, 0, 0] {
        answer.extend(field.to_be_bytes());
    }
    answer.extend(&query[HEADER..question.end]);
    for record in found {
        // The name is the one in the question.
        answer.extend([0xc0, u8::try_from(HEADER).ok()?]);
        answer.extend(record.kind.to_be_bytes());
        answer.extend(1_u16.to_be_bytes());
        answer.extend(TIME_TO_LIVE.to_be_bytes());
        answer.extend(u16::try_from(record.data.len()).ok()?.to_be_bytes());
        answer.extend(&record.data);
    }
    Some(answer)
}

fn question(query: &[u8]) -> Option<Question> {
    let mut at = HEADER;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    // The class is behind the type.
    Some(Question { name: labels.join("."), kind, end: query.get(..at + 4)?.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for `kind` records of `a.test`.
    fn asked(kind: u16) -> Vec<u8> {
        let header = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header[..], b"\x01A\x04test\x00", &kind.to_be_bytes(), &[0, 1]].concat()
    }

    #[test]
    fn records_of_the_zone_are_answered_and_others_denied() {
        let zone = [record("a.test=A:11.2.0.1").unwrap()];
        let found = answer(&zone, &asked(A)).unwrap();
        assert_eq!((&found[..4], &found[6..8]), (&[7, 7, 0x85, 0x80][..], &[0, 1][..]));
        assert!(found.ends_with(&[0, 4, 11, 2, 0, 1]));
        let empty = answer(&zone, &asked(TXT)).unwrap();
        assert_eq!((empty[3], &empty[6..8]), (0x80, &[0, 0][..]));
        assert_eq!(answer(&[], &asked(A)).unwrap()[3], 0x83);
    }

    #[test]
    fn what_is_no_question_is_not_answered() {
        let whole = asked(A);
        assert!((0..whole.len()).all(|length| answer(&[], &whole[..length]).is_none()));
    }
}
