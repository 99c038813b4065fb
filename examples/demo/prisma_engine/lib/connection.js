// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Connection settings out of a Prisma URL, and the errors that Prisma's engine reports for a failed connection.
const pg = require('pg')

/** Parameters that Prisma knows and PostgreSQL does not. */
const PRISMA_ONLY = [
  'schema', 'connection_limit', 'pool_timeout', 'pgbouncer', 'connect_timeout', 'statement_cache_size',
  'socket_timeout', 'max_connection_lifetime', 'max_idle_connection_lifetime',
]
const UNREACHABLE = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT', 'ECONNRESET', 'ENOENT']

/** An error with a code of Prisma's (P1000 ...) and the facts that go with it. */
class KnownError extends Error {
  constructor(code, message, meta) {
    super(message)
    this.code = code
    this.meta = meta
  }
}

const quoteName = (name) => `"${name.replaceAll('"', '""')}"`

function settingsOf(text) {
  const url = new URL(text)
  const parameters = url.searchParams
  const schema = parameters.get('schema') ?? 'public'
  const seconds = Number(parameters.get('connect_timeout') ?? 5)
  for (const name of PRISMA_ONLY) parameters.delete(name)
  const pool = { max: 2, idleTimeoutMillis: 0, allowExitOnIdle: true, connectionTimeoutMillis: seconds * 1000 }
  return {
    schema,
    place: `${url.hostname}:${url.port || 5432}`,
    user: decodeURIComponent(url.username),
    database: decodeURIComponent(url.pathname.slice(1)),
    config: { connectionString: url.toString(), ...pool },
    /** The same server, another database. */
    configFor(database) {
      const other = new URL(url)
      other.pathname = `/${encodeURIComponent(database)}`
      return { connectionString: other.toString(), ...pool }
    },
  }
}

function connectionError(error, settings) {
  if (['28P01', '28000'].includes(error.code)) {
    return new KnownError(
      'P1000',
      `Authentication failed against database server, the provided database credentials for \`${settings.user}\` are not valid.\n\n` +
        'Please make sure to provide valid database credentials for the database server at the configured address.',
      { database_user: settings.user },
    )
  }
  if (error.code === '3D000') {
    return new KnownError('P1003', `Database \`${settings.database}\` does not exist`, { database_name: settings.database })
  }
  if (UNREACHABLE.includes(error.code) || /timeout|terminated unexpectedly/i.test(error.message)) {
    return new KnownError(
      'P1001',
      `Can't reach database server at \`${settings.place}\`\n\nPlease make sure your database server is running at \`${settings.place}\`.`,
      { database_location: settings.place },
    )
  }
  if (error.severity) return new KnownError(undefined, `db error: ${error.severity}: ${error.message}`)
  return error
}

/** Connects, runs an action and disconnects. */
async function withClient(config, action) {
  const client = new pg.Client(config)
  client.on('error', () => {}) // a connection that breaks is reported by the query that needs it
  try {
    await client.connect()
    return await action(client)
  } finally {
    await client.end().catch(() => {})
  }
}

async function checkConnection(url) {
  const settings = settingsOf(url)
  try {
    await withClient(settings.config, (client) => client.query('SELECT 1'))
  } catch (error) {
    throw connectionError(error, settings)
  }
}

/** Makes the URL's database and schema, from whichever maintenance database lets us in. */
async function createDatabase(url) {
  const settings = settingsOf(url)
  for (const maintenance of ['postgres', 'template1', 'defaultdb']) {
    try {
      await withClient(settings.configFor(maintenance), (client) =>
        client.query(`CREATE DATABASE ${quoteName(settings.database)}`))
      await withClient(settings.config, (client) =>
        client.query(`CREATE SCHEMA IF NOT EXISTS ${quoteName(settings.schema)}`))
      return settings.database
    } catch (error) {
      if (error.code === '42P04') {
        const message = `Database \`${settings.database}\` already exists on the database server`
        throw new KnownError('P1009', message, { database_name: settings.database })
      }
      const tryNext = error.code === '3D000' && maintenance !== 'defaultdb'
      if (!tryNext) throw connectionError(error, settings)
    }
  }
}

module.exports = { KnownError, settingsOf, quoteName, checkConnection, createDatabase }
