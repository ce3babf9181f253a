//! The recount: everything that is stored twice, or follows from something
//! else, is counted again and compared. Its SQL shares nothing with the code
//! that writes; in particular the status and the charges are derived here once
//! more, from the columns alone.

use std::time::Duration;

use super::{error::Result, sql::Row, tx::Tx, types::CheckReport};

/// Differences that are named; a database with more has other troubles.
const MAX_NAMED: usize = 1_000;

/// How long one of the recounts may take.
const TIME: Duration = Duration::from_secs(1_800);

/// A recount: what it compares, a statement that finds differences, and one
/// that counts what was compared.
struct Recount {
    says: &'static str,
    differences: &'static str,
    compared: &'static str,
}

const RECOUNTS: &[Recount] = &[
    Recount {
        says: "status of a pin (account, seq, stored, derived)",
        differences: "SELECT p.account, p.seq, p.status, CASE
                WHEN p.failure IS NOT NULL OR c.denied IS NOT NULL OR c.state = 4 THEN 3
                WHEN c.state = 2 THEN 2 WHEN c.state = 0 THEN 0 ELSE 1 END
            FROM pin p JOIN content c ON c.id = p.content
            WHERE (c.follow IS NULL OR p.account <= c.follow) AND p.status <> CASE
                WHEN p.failure IS NOT NULL OR c.denied IS NOT NULL OR c.state = 4 THEN 3
                WHEN c.state = 2 THEN 2 WHEN c.state = 0 THEN 0 ELSE 1 END",
        compared: "SELECT COUNT(*) FROM pin",
    },
    Recount {
        says: "tally (account, level, bucket, pins by tally, pins counted)",
        differences: "SELECT COALESCE(t.account, n.account), COALESCE(t.level, n.level),
                COALESCE(t.bucket, n.bucket), COALESCE(t.queued + t.pinning + t.pinned + t.failed, 0),
                COALESCE(n.zero + n.one + n.two + n.three, 0)
            FROM tally t FULL JOIN (
                SELECT account, 0 AS level, seq / 256 AS bucket,
                    COUNT(CASE status WHEN 0 THEN 1 END) AS zero, COUNT(CASE status WHEN 1 THEN 1 END) AS one,
                    COUNT(CASE status WHEN 2 THEN 1 END) AS two, COUNT(CASE status WHEN 3 THEN 1 END) AS three
                FROM pin GROUP BY account, seq / 256
                UNION ALL SELECT account, 1, seq / 65536,
                    COUNT(CASE status WHEN 0 THEN 1 END), COUNT(CASE status WHEN 1 THEN 1 END),
                    COUNT(CASE status WHEN 2 THEN 1 END), COUNT(CASE status WHEN 3 THEN 1 END)
                FROM pin GROUP BY account, seq / 65536
                UNION ALL SELECT account, 2, seq / 16777216,
                    COUNT(CASE status WHEN 0 THEN 1 END), COUNT(CASE status WHEN 1 THEN 1 END),
                    COUNT(CASE status WHEN 2 THEN 1 END), COUNT(CASE status WHEN 3 THEN 1 END)
                FROM pin GROUP BY account, seq / 16777216
            ) n ON n.account = t.account AND n.level = t.level AND n.bucket = t.bucket
            WHERE COALESCE(t.queued, 0) <> COALESCE(n.zero, 0) OR COALESCE(t.pinning, 0) <> COALESCE(n.one, 0)
                OR COALESCE(t.pinned, 0) <> COALESCE(n.two, 0) OR COALESCE(t.failed, 0) <> COALESCE(n.three, 0)",
        compared: "SELECT COUNT(*) FROM tally",
    },
    Recount {
        says: "usage of an account (account, used, charged, reserved, granted)",
        differences: "SELECT a.id, a.used, COALESCE(h.charged, 0), a.reserved, COALESCE(h.reserved, 0)
            FROM account a LEFT JOIN (
                SELECT account, CAST(SUM(charged) AS BIGINT) AS charged,
                    CAST(SUM(reserved) AS BIGINT) AS reserved FROM holding GROUP BY account
            ) h ON h.account = a.id
            WHERE a.used <> COALESCE(h.charged, 0) OR a.reserved <> COALESCE(h.reserved, 0)",
        compared: "SELECT COUNT(*) FROM account",
    },
    Recount {
        says: "pins and holds of a holding (account, content, pins, counted, holds, counted)",
        differences: "SELECT COALESCE(h.account, n.account), COALESCE(h.content, n.content),
                COALESCE(h.pins, 0), COALESCE(n.pins, 0), COALESCE(h.holds, 0), COALESCE(n.holds, 0)
            FROM holding h FULL JOIN (
                SELECT account, content, CAST(SUM(pins) AS BIGINT) AS pins, CAST(SUM(holds) AS BIGINT) AS holds
                FROM (
                    SELECT account, content, COUNT(*) AS pins, 0 AS holds FROM pin
                        WHERE failure IS NULL GROUP BY account, content
                    UNION ALL
                    SELECT account, content, 0, COUNT(*) FROM hold GROUP BY account, content
                ) both_kinds GROUP BY account, content
            ) n ON n.account = h.account AND n.content = h.content
            WHERE COALESCE(h.pins, 0) <> COALESCE(n.pins, 0) OR COALESCE(h.holds, 0) <> COALESCE(n.holds, 0)",
        compared: "SELECT COUNT(*) FROM holding",
    },
    Recount {
        says: "charge of a holding (account, content, charged, reserved, credit, bytes, granted)",
        differences: "SELECT h.account, h.content, h.charged, h.reserved, COALESCE(k.credit, 0), c.bytes, c.granted
            FROM holding h JOIN content c ON c.id = h.content LEFT JOIN (
                SELECT account, successor, CAST(SUM(credit) AS BIGINT) AS credit FROM hold
                GROUP BY account, successor
            ) k ON k.account = h.account AND k.successor = h.content
            WHERE (c.follow IS NULL OR h.account <= c.follow) AND (h.charged <> CASE
                WHEN c.inline = 1 OR c.bytes IS NULL THEN 0
                WHEN c.bytes < 4096 THEN GREATEST(4096 - COALESCE(k.credit, 0), 0)
                ELSE GREATEST(c.bytes - COALESCE(k.credit, 0), 0) END
            OR h.reserved <> CASE
                WHEN c.inline = 1 OR c.bytes IS NOT NULL OR c.granted = 0 THEN 0
                WHEN c.granted < 4096 THEN GREATEST(4096 - COALESCE(k.credit, 0), 0)
                ELSE GREATEST(c.granted - COALESCE(k.credit, 0), 0) END)",
        compared: "SELECT COUNT(*) FROM holding",
    },
    Recount {
        says: "copies of a content (content, stored, counted, state)",
        differences: "SELECT c.id, c.stored, COALESCE(n.stored, 0), c.state FROM content c LEFT JOIN (
                SELECT content, COUNT(*) AS stored FROM allocation WHERE state = 1 GROUP BY content
            ) n ON n.content = c.id
            WHERE c.stored <> COALESCE(n.stored, 0)
                OR (c.inline = 0 AND c.state = 2 AND COALESCE(n.stored, 0) = 0)",
        compared: "SELECT COUNT(*) FROM content",
    },
    Recount {
        says: "allocation of a content that nobody wants (content, node, state)",
        differences: "SELECT a.content, a.node, a.state FROM allocation a WHERE a.state IN (0, 1, 3)
            AND NOT EXISTS (SELECT 1 FROM holding h WHERE h.content = a.content)",
        compared: "SELECT COUNT(*) FROM allocation",
    },
    Recount {
        says: "hold of a pin that is gone, or of another content (account, content, successor)",
        differences: "SELECT h.account, h.content, h.successor FROM hold h
            LEFT JOIN pin p ON p.requestid = h.requestid
            WHERE p.requestid IS NULL OR p.content <> h.successor OR p.account <> h.account",
        compared: "SELECT COUNT(*) FROM hold",
    },
    Recount {
        says: "credit of a replacement that nothing pays (account, content, successor, credit, charged)",
        differences: "SELECT k.account, k.content, k.successor, k.credit, h.charged FROM hold k
            JOIN pin p ON p.requestid = k.requestid
            LEFT JOIN holding h ON h.account = k.account AND h.content = k.content
            WHERE k.credit <> 0 AND (p.failure IS NOT NULL OR p.status = 2 OR h.pins IS NULL OR h.pins > 0
                OR k.credit <> h.charged)",
        compared: "SELECT COUNT(*) FROM hold",
    },
    Recount {
        says: "numbering of an account (account, next_seq, highest, last_created, newest)",
        differences: "SELECT a.id, a.next_seq, n.seq, a.last_created, n.created FROM account a JOIN (
                SELECT account, MAX(seq) AS seq, MAX(created) AS created FROM pin GROUP BY account
            ) n ON n.account = a.id WHERE a.next_seq <= n.seq OR a.last_created < n.created",
        compared: "SELECT COUNT(*) FROM account",
    },
    Recount {
        says: "order of two pins of an account (account, seq, created, created of the next)",
        differences: "SELECT * FROM (
                SELECT account, seq, created, LEAD(created) OVER (PARTITION BY account ORDER BY seq) AS next
                FROM pin
            ) n WHERE next <= created",
        compared: "SELECT COUNT(*) FROM pin",
    },
];

/// Recounts everything; `told` how many of the recounts are done, and of how
/// many.
pub(crate) async fn check(tx: &mut Tx, told: &(dyn Fn(u64, u64) + Send + Sync)) -> Result<CheckReport> {
    tx.allow(TIME).await?;
    let mut report = CheckReport::default();
    for (recount, done) in RECOUNTS.iter().zip(0_u64..) {
        told(done, RECOUNTS.len() as u64);
        let limit = MAX_NAMED - report.differences.len();
        let sql = format!("{} LIMIT {limit}", recount.differences);
        for row in tx.query(&sql, &[]).await? {
            report.differences.push(format!("{}: {}", recount.says, numbers(&row)?));
        }
        let compared = tx.first(recount.compared, &[]).await?;
        report.compared += compared.map_or(Ok(0), |row| row.count(0))?;
    }
    told(RECOUNTS.len() as u64, RECOUNTS.len() as u64);
    Ok(report)
}

fn numbers(row: &Row) -> Result<String> {
    let texts = (0..row.0.len()).map(|at| Ok(row.opt_int(at)?.map_or("none".into(), |n| n.to_string())));
    Ok(texts.collect::<Result<Vec<String>>>()?.join(", "))
}
