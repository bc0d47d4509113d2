//! Whose tables a database has, in which version, and what leads to the next one.

use super::{Cells, Db};
use crate::Error;
use std::collections::HashMap;

/// The pattern's tables, in SQLite's words.
const SCHEMA: &str = include_str!("schema.sql");
/// The tables' version: raised with every change of them.
pub(crate) const SCHEMA_VERSION: i64 = 4;
/// What leads from each version to the next, from 1 on; in SQLite's words too.
const MIGRATIONS: &[&str] =
    &[include_str!("migrate_v2.sql"), include_str!("migrate_v3.sql"), include_str!("migrate_v4.sql")];
/// The first version that knows modules.
const MODULES_SINCE: i64 = 3;

/// The tables of a module of the library's user: a name, and what leads to each version from the one before,
/// from nothing on. Versions are only ever added, and only add, so that an older program that still runs goes on.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// The module's name in the store.
    pub name: &'static str,
    /// What each version brings.
    pub versions: &'static [Sql],
}

/// SQL for both databases and for each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sql {
    /// In SQLite's words; for PostgreSQL `integer` becomes `bigint`, and `strict` falls away.
    pub all: &'static str,
    /// For SQLite alone, such as triggers.
    pub sqlite: &'static str,
    /// For PostgreSQL alone.
    pub postgres: &'static str,
}

/// What brings a module's tables up to date, and the version that they have then.
pub(crate) struct Missing {
    pub(crate) module: &'static str,
    pub(crate) version: i64,
    pub(crate) sql: &'static [Sql],
}

/// Which versions a store's tables have.
pub(crate) struct Versions {
    /// Those of the pattern; 0 where there are none.
    pub(crate) schema: i64,
    /// Those of the modules that it knows.
    pub(crate) modules: HashMap<String, i64>,
}

impl Versions {
    /// Reads the modules' versions beside the schema's.
    pub(crate) fn read(db: &mut dyn Db, schema: i64) -> Result<Versions, Error> {
        let sql = "select name, version from module";
        let rows = if schema >= MODULES_SINCE { db.query(sql, &[])? } else { Vec::new() };
        let modules = rows.into_iter().map(|row| {
            let mut row = Cells::of(row);
            (row.text(), row.int())
        });
        Ok(Versions { schema, modules: modules.collect() })
    }

    /// What brings the pattern's tables up to date.
    ///
    /// # Errors
    /// [`Error::Open`] for a version that is not known: a newer program's.
    pub(crate) fn schema_steps(&self) -> Result<Vec<&'static str>, Error> {
        match usize::try_from(self.schema) {
            Ok(0) => Ok(vec![SCHEMA]),
            Ok(version) if version <= MIGRATIONS.len() + 1 => Ok(MIGRATIONS[version - 1..].to_vec()),
            _ => Err(newer("the store's tables", self.schema, SCHEMA_VERSION)),
        }
    }

    /// What brings each module's tables up to date. A store older than modules holds the first version of the one that is named first.
    ///
    /// # Errors
    /// [`Error::Open`] as above.
    pub(crate) fn module_steps(&self, modules: &[Tables]) -> Result<Vec<Missing>, Error> {
        let mut steps = Vec::new();
        for (place, module) in modules.iter().enumerate() {
            let older = (1..MODULES_SINCE).contains(&self.schema) && place == 0;
            let has = self.modules.get(module.name).copied().unwrap_or(i64::from(older));
            let known = module.versions.len() as i64;
            let Some(missing) = usize::try_from(has).ok().and_then(|has| module.versions.get(has..)) else {
                return Err(newer(&format!("the tables of `{}`", module.name), has, known));
            };
            if !missing.is_empty() || older {
                steps.push(Missing { module: module.name, version: known, sql: missing });
            }
        }
        Ok(steps)
    }

    /// Whether nothing is to be done.
    pub(crate) fn are_todays(&self, modules: &[Tables]) -> Result<bool, Error> {
        Ok(self.schema == SCHEMA_VERSION && self.module_steps(modules)?.is_empty())
    }
}

fn newer(what: &str, has: i64, known: i64) -> Error {
    Error::Open(format!("{what} have version {has}, and this program knows {known}"))
}

/// Notes a module's version.
pub(crate) const NOTE_MODULE: &str =
    "insert into module (name, version) values (?1, ?2) on conflict (name) do update set version = ?2";
