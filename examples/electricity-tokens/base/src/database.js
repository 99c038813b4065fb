// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// The Prisma client on a pool of connections. A connection that is cut is replaced when the next query needs one.
const { PrismaClient } = require('@prisma/client')
const { PrismaPg } = require('@prisma/adapter-pg')
const log = require('./log')

/** Parameters of Prisma's URLs that PostgreSQL's driver does not know. */
const PRISMA_ONLY = ['schema', 'connection_limit', 'pool_timeout', 'connect_timeout', 'pgbouncer', 'statement_cache_size']
const CONNECT_SECONDS = 5
const CONNECTIONS = 5

function poolSettings(text) {
  const url = new URL(text)
  const given = (name, fallback) => Number(url.searchParams.get(name) ?? fallback)
  const settings = { max: given('connection_limit', CONNECTIONS), connectionTimeoutMillis: given('connect_timeout', CONNECT_SECONDS) * 1000 }
  const schema = url.searchParams.get('schema') ?? 'public'
  for (const name of PRISMA_ONLY) url.searchParams.delete(name)
  return { schema, settings: { ...settings, connectionString: url.toString(), application_name: 'electricity-tokens' } }
}

function openDatabase(url) {
  const { schema, settings } = poolSettings(url)
  const adapter = new PrismaPg(settings, {
    schema,
    onPoolError: (error) => log.warning('database connection lost', { reason: error.message }),
  })
  return new PrismaClient({ adapter, errorFormat: 'minimal' })
}

module.exports = { openDatabase }
