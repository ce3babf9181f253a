-- Tokens in braces differ between SQLite and PostgreSQL; see schema.rs.
-- Times are milliseconds since 1970, amounts bytes, flags 0 or 1.

CREATE TABLE property (
    name TEXT PRIMARY KEY,
    number BIGINT NOT NULL DEFAULT 0,
    text TEXT NOT NULL DEFAULT ''
){clustered};

-- The denylist's rules that commands add, in the order in which they apply.
CREATE TABLE denylist_rule (
    id {id},
    rule TEXT NOT NULL UNIQUE
);

CREATE TABLE account (
    id {id},
    name TEXT NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    quota BIGINT NOT NULL,
    used BIGINT NOT NULL DEFAULT 0,
    reserved BIGINT NOT NULL DEFAULT 0,
    disabled BIGINT NOT NULL DEFAULT 0,
    -- Being removed: its pins go in parts, then the row.
    removing BIGINT NOT NULL DEFAULT 0,
    next_seq BIGINT NOT NULL DEFAULT 0,
    last_created BIGINT NOT NULL DEFAULT 0,
    -- A turn became free while a content waits for one.
    turns_due BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX account_turns_due ON account (id) WHERE turns_due = 1;
CREATE INDEX account_removing ON account (id) WHERE removing = 1;

CREATE TABLE node (
    id {id},
    key {bytes} NOT NULL UNIQUE,
    operated BIGINT NOT NULL,
    addresses TEXT NOT NULL,
    gateway TEXT,
    capacity BIGINT NOT NULL,
    used BIGINT NOT NULL,
    agent TEXT NOT NULL,
    sent_at BIGINT NOT NULL,
    session BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    -- Since when it was never silent for long: deadlines count from here.
    alive_since BIGINT NOT NULL,
    seq_pull BIGINT NOT NULL DEFAULT 0,
    seq_report BIGINT NOT NULL DEFAULT 0,
    seq_inventory BIGINT NOT NULL DEFAULT 0,
    seq_denylist BIGINT NOT NULL DEFAULT 0,
    -- How far its contents were allocated anew: NULL while it is well.
    repair_cursor BIGINT
);

CREATE TABLE content (
    id {id},
    key {bytes} NOT NULL UNIQUE,
    -- The root as its first pin wrote it; what nodes are told.
    cid TEXT NOT NULL,
    inline BIGINT NOT NULL DEFAULT 0,
    state BIGINT NOT NULL DEFAULT 0,
    failure TEXT,
    detail TEXT,
    -- Since when it is denied, and why: 1 its root, 2 a block in it.
    denied BIGINT,
    denied_why BIGINT NOT NULL DEFAULT 0,
    -- The denylist's version that a node last compared its blocks under.
    compared BIGINT NOT NULL DEFAULT 0,
    generation BIGINT NOT NULL DEFAULT 0,
    granted BIGINT NOT NULL DEFAULT 0,
    stored BIGINT NOT NULL DEFAULT 0,
    manifest_version BIGINT,
    manifest_root {bytes},
    bytes BIGINT,
    blocks BIGINT,
    progress_bytes BIGINT NOT NULL DEFAULT 0,
    progress_blocks BIGINT NOT NULL DEFAULT 0,
    reason TEXT,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_attempt BIGINT,
    -- When pins without progress fail: NULL while nothing can expire.
    expires_at BIGINT,
    -- When placement is tried again, below the minimum of replicas.
    place_at BIGINT,
    -- Fewer allocations than wanted, at or above the minimum.
    short BIGINT NOT NULL DEFAULT 0,
    -- Pins of accounts above this number do not show the state yet.
    follow BIGINT
);
CREATE INDEX content_expires ON content (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX content_place ON content (place_at) WHERE place_at IS NOT NULL;
CREATE INDEX content_short ON content (id) WHERE short = 1;
CREATE INDEX content_follow ON content (id) WHERE follow IS NOT NULL;
CREATE INDEX content_denied ON content (denied) WHERE denied IS NOT NULL;

CREATE TABLE pin (
    {rowid}
    requestid {bytes} NOT NULL UNIQUE,
    account BIGINT NOT NULL REFERENCES account (id),
    content BIGINT NOT NULL REFERENCES content (id),
    created BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    status BIGINT NOT NULL,
    cid TEXT NOT NULL,
    name TEXT,
    folded TEXT {binary},
    meta TEXT NOT NULL,
    origins TEXT NOT NULL,
    -- Why and how this pin itself ended: never undone.
    failure TEXT,
    detail TEXT,
    UNIQUE (account, created)
);
CREATE INDEX pin_status ON pin (account, status, created);
CREATE INDEX pin_content ON pin (content, account, created);
CREATE INDEX pin_folded ON pin (account, folded, created) WHERE folded IS NOT NULL;

-- One row per key-value pair of a pin's meta; `pair` is a digest of both.
CREATE TABLE pin_meta (
    account BIGINT NOT NULL,
    pair {bytes} NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (account, pair, created)
){clustered};

CREATE TABLE tally (
    account BIGINT NOT NULL,
    level BIGINT NOT NULL,
    bucket BIGINT NOT NULL,
    queued BIGINT NOT NULL,
    pinning BIGINT NOT NULL,
    pinned BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    PRIMARY KEY (account, level, bucket)
){clustered};

CREATE TABLE holding (
    account BIGINT NOT NULL REFERENCES account (id),
    content BIGINT NOT NULL REFERENCES content (id),
    charged BIGINT NOT NULL,
    reserved BIGINT NOT NULL,
    -- Pins that have not failed.
    pins BIGINT NOT NULL,
    -- Replacing pins that keep it.
    holds BIGINT NOT NULL,
    -- 0 none needed, 1 waits for one, 2 has one, 3 pauses.
    turn BIGINT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (account, content)
){clustered};
CREATE INDEX holding_content ON holding (content, account);
CREATE INDEX holding_waiting ON holding (account, since) WHERE turn = 1;
CREATE INDEX holding_active ON holding (account) WHERE turn = 2;
CREATE INDEX holding_reserved ON holding (account, content) WHERE reserved > 0;

CREATE TABLE hold (
    requestid {bytes} PRIMARY KEY,
    account BIGINT NOT NULL REFERENCES account (id),
    content BIGINT NOT NULL REFERENCES content (id),
    successor BIGINT NOT NULL REFERENCES content (id),
    credit BIGINT NOT NULL
){clustered};
CREATE INDEX hold_content ON hold (content, account);
CREATE INDEX hold_successor ON hold (successor, account);

CREATE TABLE allocation (
    content BIGINT NOT NULL REFERENCES content (id),
    node BIGINT NOT NULL REFERENCES node (id),
    generation BIGINT NOT NULL,
    state BIGINT NOT NULL,
    -- Grows with each change; sent and acked follow it.
    version BIGINT NOT NULL,
    sent BIGINT NOT NULL DEFAULT 0,
    acked BIGINT NOT NULL DEFAULT 0,
    repair BIGINT NOT NULL DEFAULT 0,
    bytes BIGINT NOT NULL DEFAULT 0,
    since BIGINT NOT NULL,
    retry_at BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (content, node)
){clustered};
CREATE INDEX allocation_node ON allocation (node, content);
CREATE INDEX allocation_unacknowledged ON allocation (node, content) WHERE acked < version;

-- What a node holds that this database does not know, after a restore.
CREATE TABLE stray (
    node BIGINT NOT NULL REFERENCES node (id),
    content BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    found BIGINT NOT NULL,
    confirmed BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (node, content)
){clustered};

CREATE TABLE token (
    id {bytes} PRIMARY KEY,
    account BIGINT NOT NULL REFERENCES account (id),
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    hash {bytes} NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    last_used BIGINT,
    revoked BIGINT
);
CREATE INDEX token_account ON token (account);

CREATE TABLE signing_key (
    kid TEXT PRIMARY KEY,
    sealed {bytes} NOT NULL,
    created BIGINT NOT NULL,
    retired BIGINT
);

CREATE TABLE deed (
    id {id},
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX deed_at ON deed (at);

CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    until BIGINT NOT NULL
);

{trigrams}
