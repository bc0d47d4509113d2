-- Version 4: where jobs' output is and was. None of it is ever a dataset.
create table output_root (
  uri text primary key
) strict, without rowid;
