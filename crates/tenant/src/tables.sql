-- Who submits jobs and is billed. The settings are JSON, as `Settings` has them.
create table tenant (
  id         text primary key,
  settings   text not null default '{}',
  created_ms integer not null
) strict, without rowid;
