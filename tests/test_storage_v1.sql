-- A database as version 0.1 wrote it, with rows of every kind. Never changes.
BEGIN TRANSACTION;
CREATE TABLE conversation (
    conversation VARCHAR NOT NULL,
    generation INTEGER DEFAULT '0' NOT NULL,
    choices VARCHAR DEFAULT '{}' NOT NULL,
    PRIMARY KEY (conversation)
) WITHOUT ROWID
;
INSERT INTO "conversation" VALUES('conv',1,'{"model":"m"}');
CREATE TABLE inbox (
    event_key VARCHAR NOT NULL,
    turn_id VARCHAR,
    reason VARCHAR DEFAULT '' NOT NULL,
    seen_at FLOAT NOT NULL,
    PRIMARY KEY (event_key)
) WITHOUT ROWID
;
INSERT INTO "inbox" VALUES('b:om_answered','answered','',1795500000.0);
INSERT INTO "inbox" VALUES('b:om_command','command','',1795500011.0);
INSERT INTO "inbox" VALUES('b:om_decided','decided','',1795500006.0);
INSERT INTO "inbox" VALUES('b:om_doubt','doubt','',1795500004.0);
INSERT INTO "inbox" VALUES('b:om_failed','failed','',1795500002.0);
INSERT INTO "inbox" VALUES('b:om_full','full','',1795500010.0);
INSERT INTO "inbox" VALUES('b:om_gone','gone','',1795500009.0);
INSERT INTO "inbox" VALUES('b:om_ignored',NULL,'not_mentioned',1795500013.0);
INSERT INTO "inbox" VALUES('b:om_lost','lost','',1795500003.0);
INSERT INTO "inbox" VALUES('b:om_notice','notice','',1795500012.0);
INSERT INTO "inbox" VALUES('b:om_running','running','',1795500007.0);
INSERT INTO "inbox" VALUES('b:om_told','told','',1795500005.0);
INSERT INTO "inbox" VALUES('b:om_waiting','waiting','',1795500008.0);
INSERT INTO "inbox" VALUES('b:retry:answered','again','',1795500001.0);
CREATE TABLE lane (
    lane VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    head VARCHAR NOT NULL,
    PRIMARY KEY (lane)
) WITHOUT ROWID
;
INSERT INTO "lane" VALUES('l2','6bcf219211de4411bcf37f64aaf6d5a5','decided');
INSERT INTO "lane" VALUES('lane','6bcf219211de4411bcf37f64aaf6d5a5','running');
CREATE TABLE reply (
    turn_id VARCHAR NOT NULL,
    part INTEGER NOT NULL,
    "key" VARCHAR NOT NULL,
    rung VARCHAR DEFAULT '' NOT NULL,
    card_id VARCHAR DEFAULT '' NOT NULL,
    message_id VARCHAR DEFAULT '' NOT NULL,
    sequence INTEGER DEFAULT '0' NOT NULL,
    extra VARCHAR DEFAULT '{}' NOT NULL,
    PRIMARY KEY (turn_id, part),
    FOREIGN KEY(turn_id) REFERENCES turn (id)
) WITHOUT ROWID
;
INSERT INTO "reply" VALUES('answered',0,'answered-0','card','c1','m1',7,'{"x":[1]}');
INSERT INTO "reply" VALUES('decided',1,'decided-1','','c2','',0,'{}');
INSERT INTO "reply" VALUES('running',0,'running-0','','','',0,'{}');
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE turn (
    no INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    bot VARCHAR NOT NULL,
    platform VARCHAR NOT NULL,
    chat VARCHAR NOT NULL,
    chat_kind VARCHAR NOT NULL,
    topic VARCHAR DEFAULT '' NOT NULL,
    conversation VARCHAR NOT NULL,
    lane VARCHAR NOT NULL,
    sender VARCHAR NOT NULL,
    message_id VARCHAR DEFAULT '' NOT NULL,
    lang VARCHAR DEFAULT '' NOT NULL,
    asked_at FLOAT NOT NULL,
    notice VARCHAR DEFAULT '' NOT NULL,
    replaces VARCHAR DEFAULT '' NOT NULL,
    root VARCHAR NOT NULL,
    state VARCHAR DEFAULT 'queued' NOT NULL,
    attempt INTEGER DEFAULT '0' NOT NULL,
    generation INTEGER DEFAULT '0' NOT NULL,
    queue VARCHAR,
    owner VARCHAR,
    done INTEGER,
    ended_at FLOAT,
    outcome VARCHAR,
    finish VARCHAR DEFAULT '' NOT NULL,
    model VARCHAR DEFAULT '' NOT NULL,
    prompt_tokens INTEGER DEFAULT '0' NOT NULL,
    completion_tokens INTEGER DEFAULT '0' NOT NULL,
    cached_tokens INTEGER DEFAULT '0' NOT NULL,
    reasoning_tokens INTEGER DEFAULT '0' NOT NULL,
    cost FLOAT DEFAULT '0' NOT NULL,
    error VARCHAR DEFAULT '' NOT NULL,
    delivery VARCHAR DEFAULT 'open' NOT NULL,
    proof VARCHAR DEFAULT '' NOT NULL,
    note VARCHAR DEFAULT '' NOT NULL,
    footer VARCHAR DEFAULT '' NOT NULL,
    person VARCHAR NOT NULL,
    notice_args VARCHAR DEFAULT '{}' NOT NULL,
    address VARCHAR DEFAULT '{}' NOT NULL,
    parts VARCHAR DEFAULT '[]' NOT NULL,
    answer VARCHAR DEFAULT '' NOT NULL,
    reasoning VARCHAR DEFAULT '' NOT NULL,
    PRIMARY KEY (no)
);
INSERT INTO "turn" VALUES(1,'answered','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_answered','zh',1795499999.0,'','','answered','answered',1,0,NULL,NULL,NULL,1795500001.0,'answered','stop','m',9,5,3,1,0.25,'','delivered','om_r','n','f','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question answered"}]','answer answered','why');
INSERT INTO "turn" VALUES(2,'again','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_answered','zh',1795499999.0,'','answered','answered','answered',1,0,NULL,NULL,1,1795500002.0,'answered','','m',9,5,3,1,0.25,'','delivered','om_r','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question again"}]','answer again','');
INSERT INTO "turn" VALUES(3,'failed','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_failed','zh',1795499999.0,'','','failed','failed',1,0,NULL,NULL,NULL,1795500003.0,'failed','','m',9,5,3,1,0.25,'cause','delivered','om_r','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question failed"}]','','');
INSERT INTO "turn" VALUES(4,'lost','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_lost','zh',1795499999.0,'','','lost','answered',1,0,NULL,NULL,2,1795500004.0,'answered','','m',9,5,3,1,0.25,'','undelivered','om_r','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question lost"}]','answer lost','');
INSERT INTO "turn" VALUES(5,'doubt','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_doubt','zh',1795499999.0,'','','doubt','answered',1,0,NULL,NULL,3,1795500005.0,'answered','','m',9,5,3,1,0.25,'','unconfirmed','om_r','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question doubt"}]','answer doubt','');
INSERT INTO "turn" VALUES(6,'told','command','b','feishu','oc_1','group','','conv','lane','ou_1','om_told','zh',1795499999.0,'','','told','answered',0,0,NULL,NULL,NULL,1795500006.0,'answered','','m',9,5,3,1,0.25,'','delivered','om_r','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question told"}]','answer told','');
INSERT INTO "turn" VALUES(7,'decided','chat','b','feishu','oc_1','group','','conv','l2','ou_1','om_decided','zh',1795499999.0,'','','decided','running',1,1,'l2',NULL,NULL,NULL,'answered','','',0,0,0,0,0.0,'','open','','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question decided"}]','whole','');
INSERT INTO "turn" VALUES(8,'running','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_running','zh',1795499999.0,'','','running','running',1,1,'lane',NULL,NULL,NULL,NULL,'','',0,0,0,0,0.0,'','open','','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question running"}]','half','thinking');
INSERT INTO "turn" VALUES(9,'waiting','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_waiting','zh',1795499999.0,'','','waiting','queued',0,0,'lane',NULL,NULL,NULL,NULL,'','',0,0,0,0,0.0,'','open','','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"hi"},{"quote":"q","author":"A"},{"unreadable":"image","name":"x"}]','','');
INSERT INTO "turn" VALUES(10,'gone','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_gone','zh',1795499999.0,'','','gone','recalled',0,1,NULL,NULL,NULL,1795500010.0,'recalled','','',0,0,0,0,0.0,'','delivered','unneeded','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question gone"}]','','');
INSERT INTO "turn" VALUES(11,'full','chat','b','feishu','oc_1','group','','conv','lane','ou_1','om_full','zh',1795499999.0,'','','full','refused',0,0,NULL,'6bcf219211de4411bcf37f64aaf6d5a5',NULL,NULL,NULL,'','',0,0,0,0,0.0,'','open','','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question full"}]','','');
INSERT INTO "turn" VALUES(12,'command','command','b','feishu','oc_1','group','','conv','lane','ou_1','om_command','zh',1795499999.0,'','','command','queued',0,0,NULL,'6bcf219211de4411bcf37f64aaf6d5a5',NULL,NULL,NULL,'','',0,0,0,0,0.0,'','open','','','','["ou_1","Ann","on_1"]','{}','{"chat":"oc_1"}','[{"text":"question command"}]','','');
INSERT INTO "turn" VALUES(13,'notice','notice','b','feishu','oc_1','group','','conv','lane','ou_1','om_notice','zh',1795499999.0,'notice.empty','','notice','queued',0,0,NULL,'6bcf219211de4411bcf37f64aaf6d5a5',NULL,NULL,NULL,'','',0,0,0,0,0.0,'','open','','','','["ou_1","Ann","on_1"]','{"n":1}','{"chat":"oc_1"}','[{"text":"question notice"}]','','');
CREATE INDEX inbox_seen
    ON inbox (seen_at)
;
CREATE INDEX turn_history
    ON turn (conversation, generation, done)
    WHERE done IS NOT NULL
;
CREATE UNIQUE INDEX turn_id
    ON turn (id)
;
CREATE INDEX turn_message
    ON turn (bot, message_id, no)
;
CREATE INDEX turn_outside
    ON turn (owner)
    WHERE owner IS NOT NULL
;
CREATE INDEX turn_part
    ON turn (conversation, generation, no)
    WHERE kind = 'chat' AND ended_at IS NOT NULL
;
CREATE INDEX turn_person
    ON turn (conversation, generation, sender, no)
    WHERE kind = 'chat' AND ended_at IS NOT NULL
;
CREATE INDEX turn_queue
    ON turn (queue, no)
    WHERE queue IS NOT NULL
;
CREATE INDEX turn_root
    ON turn (root)
    WHERE done IS NOT NULL
;
CREATE INDEX usage_person
    ON turn (sender, ended_at, prompt_tokens, completion_tokens, cached_tokens,
    reasoning_tokens, cost)
    WHERE kind = 'chat' AND attempt > 0 AND ended_at IS NOT NULL
;
CREATE INDEX usage_place
    ON turn (conversation, ended_at, prompt_tokens, completion_tokens, cached_tokens,
    reasoning_tokens, cost)
    WHERE kind = 'chat' AND attempt > 0 AND ended_at IS NOT NULL
;
CREATE INDEX usage_time
    ON turn (ended_at, prompt_tokens, completion_tokens, cached_tokens,
    reasoning_tokens, cost)
    WHERE kind = 'chat' AND attempt > 0 AND ended_at IS NOT NULL
;
COMMIT;
