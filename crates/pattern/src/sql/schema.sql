-- The pattern's tables. Times are milliseconds since 1970; JSON is text. The CHECKs mirror machine.rs.

-- The library's users, and the version of each one's tables.
create table module (
  name    text primary key,
  version integer not null
) strict, without rowid;

create table work (
  id          text primary key,
  tenant      text not null,
  kind        text not null,
  spec        text not null,
  stage       text not null,
  status      text not null check (status in
              ('accepted', 'running', 'parked', 'completed', 'completed_with_gaps', 'failed', 'cancelled')),
  outcome     text check (outcome in ('completed', 'completed_with_gaps', 'failed', 'cancelled')),
  error       text,
  cancel      integer not null default 0 check (cancel in (0, 1)),
  created_ms  integer not null,
  started_ms  integer,
  ended_ms    integer,
  deadline_ms integer,
  events      integer not null default 0,
  priority    integer not null default 5 check (priority between 0 and 9),
  check ((ended_ms is not null) = (status in ('completed', 'completed_with_gaps', 'failed', 'cancelled'))),
  check (ended_ms is null or status = outcome)
) strict;
create index work_by_tenant on work (tenant, id);
create index work_by_status on work (tenant, status, id);
create index work_by_end on work (ended_ms) where ended_ms is not null;

create table idempotency_key (
  tenant      text not null,
  scope       text not null,
  key         text not null,
  fingerprint text not null,
  work_id     text not null references work (id),
  created_ms  integer not null,
  primary key (tenant, scope, key)
) strict, without rowid;
create index idempotency_key_by_work on idempotency_key (work_id);

-- One row for each controller and work. `asked` counts what was put to it and `seen` what of that its last
-- claim took up, so that what comes while it runs is not lost.
create table controller (
  work_id     text not null references work (id),
  name        text not null,
  step        text not null check (step in ('waiting', 'running', 'idle', 'parked', 'done')),
  attempt     integer not null default 0,
  owner       text,
  lease_ms    integer,
  due_ms      integer not null,
  asked       integer not null default 1,
  seen        integer not null default 0,
  failures    integer not null default 0,
  tries       integer not null default 0,
  waiting_for text,
  waiting_since_ms integer,
  suspect     integer not null default 0 check (suspect in (0, 1)),
  alone       integer not null default 0 check (alone in (0, 1)),
  settled     integer not null default 0 check (settled in (0, 1)),
  metrics     text not null default '{}',
  memo        text not null default '{}',
  error       text,
  started_ms  integer,
  ended_ms    integer,
  primary key (work_id, name),
  check ((step = 'running') = (owner is not null)),
  check ((step = 'running') = (lease_ms is not null)),
  check (step <> 'parked' or error is not null)
) strict, without rowid;
create index controller_due on controller (due_ms) where step = 'waiting';
create index controller_leased on controller (lease_ms) where step = 'running';
create index controller_suspect on controller (name, due_ms) where suspect = 1;
create index controller_by_dependency on controller (waiting_for) where waiting_for is not null;

create table consumer_group (
  name       text primary key,
  topic      text not null,
  created_ms integer not null
) strict, without rowid;

create table message (
  id         integer primary key,
  topic      text not null,
  work_id    text not null,
  created_ms integer not null,
  relayed_ms integer
) strict;
create index message_unrelayed on message (id) where relayed_ms is null;

-- `lane` is the work's tenant and, behind a blank, 9 less its priority: claims go from tenant to tenant, and in each from
-- the first lane on. All of one work lies together, as most questions are about one.
create table delivery (
  work_id    text not null,
  group_name text not null,
  message_id integer not null,
  lane       text not null default ' 4',
  due_ms     integer not null,
  deliveries integer not null default 0,
  primary key (work_id, group_name, message_id)
) strict, without rowid;
create index delivery_lane on delivery (group_name, lane, due_ms, work_id);

-- What a controller beyond this store has said to be done, as a wish: its row is settled by its own group.
create table confirmation (
  work_id text not null references work (id),
  name    text not null,
  at_ms   integer not null,
  primary key (work_id, name)
) strict, without rowid;

create table event (
  work_id text not null references work (id),
  seq     integer not null,
  at_ms   integer not null,
  kind    text not null,
  data    text not null,
  primary key (work_id, seq)
) strict, without rowid;
