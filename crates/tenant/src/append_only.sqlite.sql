-- The audit log is append-only, whoever writes.
create trigger audit_log_no_update before update on audit_log begin select raise(abort, 'the audit log is append-only'); end;
create trigger audit_log_no_delete before delete on audit_log begin select raise(abort, 'the audit log is append-only'); end;
