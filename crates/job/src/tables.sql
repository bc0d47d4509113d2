-- The grep system's own tables, written in the transactions of its controllers.

-- Shards that count, in the order in which they settled: what /hits shows while a job runs.
create table settled (
  work_id text not null references work (id) on delete cascade,
  n       integer not null,
  shard   integer not null,
  record  text not null,
  hits    integer not null,
  bytes   integer not null,
  records integer not null,
  primary key (work_id, n),
  unique (work_id, shard)
) strict, without rowid;

-- What was counted and what it costs. Append-only: a correction is a row of its own. It outlives its work, which is
-- forgotten some day, so it does not point to it.
create table ledger (
  id            integer primary key,
  tenant        text not null,
  work_id       text not null,
  meter         text not null,
  seq           integer not null,
  quantity      integer not null,
  unit          text not null,
  price_micros  integer not null,
  amount_micros integer not null,
  currency      text not null,
  rates_version text not null,
  at_ms         integer not null,
  unique (work_id, meter, seq)
) strict;
create index ledger_by_tenant on ledger (tenant, at_ms);
