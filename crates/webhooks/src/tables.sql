-- Who is told of works that end, and what became of each telling. The works are only named: they may be forgotten before.

create table webhook (
  id         text primary key,
  tenant     text not null,
  url        text not null,
  -- What secrets are made of, the newest first: a list of {"key", "salt", "until_ms"}; of older programs {"secret", "until_ms"}.
  secrets    text not null,
  -- Why nothing is sent there any more.
  disabled   text,
  created_ms integer not null
) strict, without rowid;
create index webhook_by_tenant on webhook (tenant, id);

create table webhook_delivery (
  work_id    text not null,
  webhook_id text not null,
  attempts   integer not null,
  next_ms    integer not null,
  -- When it arrived, or was given up.
  done_ms    integer,
  said       text not null,
  primary key (work_id, webhook_id)
) strict, without rowid;
create index webhook_delivery_by_end on webhook_delivery (done_ms) where done_ms is not null;
