-- A tenant that was removed keeps its row: its name stands in jobs and invoices, and is nobody else's.
alter table tenant add column removed_ms integer;
-- How long a key would have lived had it not been rotated, 0 for ever; and about when it was last shown.
alter table api_key add column life_ms integer;
alter table api_key add column used_ms integer;
