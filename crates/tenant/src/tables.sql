-- Who submits jobs and is billed. The settings are JSON, as `Settings` has them.
create table tenant (
  id         text primary key,
  settings   text not null default '{}',
  created_ms integer not null
) strict, without rowid;

-- Keys by which a client shows for whom it speaks. Of the secret only a hash is here.
create table api_key (
  id         text primary key,
  tenant     text not null references tenant (id),
  label      text not null default '',
  hash       text not null,
  scopes     text not null,
  created_ms integer not null,
  expires_ms integer,
  revoked_ms integer,
  replaces   text references api_key (id)
) strict, without rowid;
create index api_key_by_tenant on api_key (tenant, id);

-- Who did what. Append-only, and never a secret or a match.
create table audit_log (
  id      integer primary key,
  at_ms   integer not null,
  tenant  text not null,
  actor   text not null,
  action  text not null,
  target  text not null,
  outcome text not null,
  address text not null
) strict;
create index audit_log_by_tenant on audit_log (tenant, id);

-- Jobs that run, or wait to run, of tenants that may run only so many: one that runs has a number, and no two
-- of a tenant have the same.
create table job_slot (
  work_id  text primary key,
  tenant   text not null,
  slot     integer,
  priority integer not null,
  unique (tenant, slot)
) strict, without rowid;
create index job_slot_waiting on job_slot (tenant, priority desc, work_id) where slot is null;
