-- Version 3: jobs whose hits went before them, as they had been kept long enough.
create table hits_expired (
  work_id text primary key references work (id) on delete cascade,
  -- Whether they have all been removed; until then somebody has to go on with it.
  removed integer not null
) strict, without rowid;
