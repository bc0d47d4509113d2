-- From version 1 to 2: the outbox knows what was relayed, and groups beyond the store can confirm.

alter table message add column relayed_ms integer;
create index message_unrelayed on message (id) where relayed_ms is null;

create table confirmation (
  work_id text not null references work (id),
  name    text not null,
  at_ms   integer not null,
  primary key (work_id, name)
) strict, without rowid;
