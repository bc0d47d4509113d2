-- The ledger is append-only, whoever writes.
create trigger ledger_append_only before update or delete or truncate on ledger
  for each statement execute function refuse_change();
create trigger posting_append_only before update or delete or truncate on posting
  for each statement execute function refuse_change();
-- Lines that were copied brought their numbers along.
select setval(pg_get_serial_sequence('ledger', 'id'), coalesce((select max(id) from ledger), 0) + 1, false);
