-- Version 2: what a ledger needs that can be checked, and money that is promised before it is spent.

-- What was counted and what it costs, or what of that is taken back. Append-only. It outlives its work, which is
-- forgotten some day, so it does not point to it. Earlier ledgers did, and did not keep how many make a unit: 0.
create table ledger_2 (
  id            integer primary key,
  tenant        text not null,
  work_id       text not null,
  meter         text not null,
  seq           integer not null,
  quantity      integer not null,
  unit          text not null,
  per           integer not null,
  price_micros  integer not null,
  amount_micros integer not null,
  currency      text not null,
  rates_version text not null,
  at_ms         integer not null,
  reverses      integer,
  reason        text,
  unique (work_id, meter, seq),
  unique (reverses)
) strict;
insert into ledger_2
  select id, tenant, work_id, meter, seq, quantity, unit, 0, price_micros, amount_micros, currency, rates_version, at_ms,
         null, null
  from ledger;
drop table ledger;
alter table ledger_2 rename to ledger;
create index ledger_by_tenant on ledger (tenant, at_ms);

-- The two sides of each line of the ledger, which come to 0: what the tenant owes, and what was earned by what.
create table posting (
  ledger_id     integer not null,
  account       text not null,
  amount_micros integer not null,
  primary key (ledger_id, account)
) strict, without rowid;
insert into posting select id, 'tenant/' || tenant, amount_micros from ledger;
insert into posting select id, 'revenue/' || meter, -amount_micros from ledger;

-- How many lines the ledger has and what they come to. Whoever adds some locks it first, so that lines have their
-- numbers in the order in which they are committed, and whoever reads on from a number misses none.
create table ledger_head (
  one          integer not null unique check (one = 1),
  lines        integer not null,
  total_micros integer not null
) strict;
insert into ledger_head select 1, count(*), coalesce(sum(amount_micros), 0) from ledger;

-- Rates that jobs were launched with, by the SHA-256 of their JSON.
create table rates (
  sha256 text primary key,
  rates  text not null
) strict, without rowid;

-- What a tenant's jobs of a month may still cost and have cost. Who reserves says against which limit, and the
-- constraint sees to it; who settles says none, as what was spent was spent.
create table budget (
  tenant          text not null,
  month           text not null,
  reserved_micros integer not null,
  spent_micros    integer not null,
  limit_micros    integer,
  primary key (tenant, month),
  constraint budget_holds check (limit_micros is null or reserved_micros + spent_micros <= limit_micros)
) strict, without rowid;

-- What each job holds of its budget from its launch on, and what became of it.
create table reservation (
  work_id        text primary key,
  tenant         text not null,
  month          text not null,
  amount_micros  integer not null,
  rates_sha256   text not null,
  settled_micros integer
) strict, without rowid;
create index reservation_by_month on reservation (tenant, month);
