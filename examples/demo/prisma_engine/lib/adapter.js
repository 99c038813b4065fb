// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// The engine's door to the database: Prisma's pg adapter, changed where the schema engine needs more than a client.
const { randomUUID } = require('node:crypto')
const { PrismaPg } = require('@prisma/adapter-pg')
const { settingsOf, quoteName } = require('./connection')
const { failedMigration } = require('./failed_migration')
const { sendsStatements } = require('./package')
const { statements } = require('./statements')

const CHAR = 18
const TEXT = 25
const NAME_ARRAY = 1003
const TEXT_ARRAY = 1009
const CHARACTER_COLUMN = 6
/** Types of the catalogs that the adapter does not know and that read well as text: name, regproc and their like. */
const READ_AS_TEXT = new Set([18, 19, 22, 24, 194, 2205, 2206, 4089])

/** Catalog columns of types that the adapter refuses are given out as text; returns where "char" columns are. */
function simplifyTypes(fields) {
  const characters = []
  fields.forEach((field, index) => {
    if (field.dataTypeID === CHAR) characters.push(index)
    if (READ_AS_TEXT.has(field.dataTypeID)) field.dataTypeID = TEXT
    else if (field.dataTypeID === NAME_ARRAY) field.dataTypeID = TEXT_ARRAY
  })
  return characters
}

/** What is being applied, and how its script failed; shared by all connections of the engine. */
class Applying {
  active = false
  migration = null
  error = null
}

const insertsMigration = (sql) => /^\s*INSERT INTO .*_prisma_migrations/.test(sql)
const storesLogs = (sql) => /^\s*UPDATE .*_prisma_migrations.* SET "logs"/.test(sql)
const withoutMessage = (text) => text.replace(/^[\s\S]*?(?=\n\s+0: )/, '')

/** One session for everything: locks, search_path and transactions belong to a session. */
async function bindToOneSession(adapter, schema) {
  const pool = adapter.underlyingDriver()
  const client = await pool.connect().catch((error) => adapter.onError(error))
  client.on('error', () => {}) // the query that needs the connection reports it
  await client.query(`SET search_path = ${quoteName(schema)}`)
  const session = { query: client.query.bind(client), characters: [] }
  pool.query = async (...query) => {
    const result = await session.query(...query)
    session.characters = Array.isArray(result?.fields) ? simplifyTypes(result.fields) : []
    return result
  }
  const endPool = adapter.dispose.bind(adapter)
  let disposed = false
  adapter.dispose = async () => {
    if (disposed) return
    disposed = true
    client.release(true)
    await endPool()
  }
  return session
}

async function prepare(adapter, schema, applying, print) {
  const session = await bindToOneSession(adapter, schema)
  const queryRaw = adapter.queryRaw.bind(adapter)

  adapter.queryRaw = async (query) => {
    if (insertsMigration(query.sql)) {
      applying.migration = query.args.at(-1)
      if (applying.active) print(`Applying migration \`${applying.migration}\``)
    }
    if (applying.error && storesLogs(query.sql)) {
      const logs = applying.error.message + withoutMessage(String(query.args[0]))
      query = { ...query, args: [logs, ...query.args.slice(1)] }
    }
    let result
    try {
      result = await queryRaw(query)
    } catch (error) {
      // A script that left its own BEGIN open: the logs cannot be stored, and this error is the one to report.
      if (storesLogs(query.sql)) applying.error = null
      throw error
    }
    for (const index of session.characters) result.columnTypes[index] = CHARACTER_COLUMN
    return result
  }

  // As the native engine of the version sends it: the whole script as one query, atomic unless it says otherwise, or
  // statement by statement.
  adapter.executeScript = async (script) => {
    const parts = sendsStatements ? statements(script) : [script]
    for (const part of parts) {
      try {
        await session.query(part)
      } catch (error) {
        if (applying.active) applying.error = failedMigration(error, part, applying.migration)
        adapter.onError(error)
      }
    }
  }
  return adapter
}

/** A shadow database that is kept for us: emptied, then used. */
async function givenShadow(url, applying, print) {
  const settings = settingsOf(url)
  const adapter = await new PrismaPg(settings.config, { schema: settings.schema }).connect()
  const shadow = await prepare(adapter, settings.schema, applying, print)
  const schema = quoteName(settings.schema)
  await shadow.executeScript(`DROP SCHEMA IF EXISTS ${schema} CASCADE; CREATE SCHEMA ${schema}`)
  return shadow
}

/** A shadow database of our own, dropped at the end. */
async function ownShadow(settings, connect, applying, print) {
  const database = `prisma_migrate_shadow_db_${randomUUID()}`
  const main = await prepare(await connect(), settings.schema, applying, print)
  await main.executeScript(`CREATE DATABASE ${quoteName(database)}`)
  const adapter = await new PrismaPg(settings.configFor(database), { schema: settings.schema }).connect()
  const shadow = await prepare(adapter, settings.schema, applying, print)
  const end = shadow.dispose
  let disposed = false
  shadow.dispose = async () => {
    if (disposed) return
    disposed = true
    await end()
    await main.executeScript(`DROP DATABASE IF EXISTS ${quoteName(database)} WITH (FORCE)`)
    await main.dispose()
  }
  return shadow
}

function adapterFactory(url, shadowUrl, applying, print) {
  const settings = settingsOf(url)
  const factory = new PrismaPg(settings.config, { schema: settings.schema })
  const connect = factory.connect.bind(factory)
  factory.connect = async () => prepare(await connect(), settings.schema, applying, print)
  factory.connectToShadowDb = () =>
    shadowUrl ? givenShadow(shadowUrl, applying, print) : ownShadow(settings, connect, applying, print)
  return factory
}

module.exports = { Applying, adapterFactory }
