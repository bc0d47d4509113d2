-- From version 3 to 4: priorities, turns between tenants, and works that are forgotten some time after their end.

alter table work add column priority integer not null default 5 check (priority between 0 and 9);
create index work_by_end on work (ended_ms) where ended_ms is not null;
create index idempotency_key_by_work on idempotency_key (work_id);

-- What was waiting takes its turn as its tenant's. The older program writes rows without a lane: they share one.
create table delivery_by_lane (
  work_id    text not null,
  group_name text not null,
  message_id integer not null,
  lane       text not null default ' 4',
  due_ms     integer not null,
  deliveries integer not null default 0,
  primary key (work_id, group_name, message_id)
) strict, without rowid;
insert into delivery_by_lane (work_id, group_name, message_id, lane, due_ms, deliveries)
  select d.work_id, d.group_name, d.message_id, coalesce((select w.tenant from work w where w.id = d.work_id), '') || ' 4',
         d.due_ms, d.deliveries from delivery d;
drop table delivery;
alter table delivery_by_lane rename to delivery;
create index delivery_lane on delivery (group_name, lane, due_ms, work_id);

drop index controller_by_owner;
