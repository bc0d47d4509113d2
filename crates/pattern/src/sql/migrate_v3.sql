-- From version 2 to 3: each module of the library's user has tables of its own version.

create table module (
  name    text primary key,
  version integer not null
) strict, without rowid;
