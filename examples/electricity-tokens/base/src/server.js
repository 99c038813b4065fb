// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Starts the HTTP API and ends it in good order: open requests are answered, the database connections closed.
const http = require('node:http')
const { readConfig } = require('./config')
const { openDatabase } = require('./database')
const { answerRequests } = require('./http')
const log = require('./log')
const { routes } = require('./routes')

/** How long open requests may take after a signal, in milliseconds. */
const LAST_REQUESTS = 4000

function stopOnSignals(server, database) {
  let stopping = false
  const stop = (signal) => {
    if (stopping) return
    stopping = true
    log.info('stopping', { signal })
    setTimeout(() => server.closeAllConnections(), LAST_REQUESTS).unref()
    server.close(async () => {
      await database.$disconnect().catch(() => {})
      log.info('stopped', {})
      process.exit(0)
    })
    server.closeIdleConnections()
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
}

function main() {
  let config
  try {
    config = readConfig()
  } catch (error) {
    log.error('cannot start', { reason: error.message })
    process.exit(1)
  }
  const database = openDatabase(config.databaseUrl)
  const server = http.createServer(answerRequests(routes({ database, config })))
  server.on('error', (error) => {
    log.error('cannot listen', { host: config.host, port: config.port, reason: error.message })
    process.exit(1)
  })
  server.listen(config.port, config.host, () => {
    log.info('listening', { host: config.host, port: config.port, release: config.release, version: config.version })
    if (process.send) process.send('ready') // pm2 waits for this
  })
  stopOnSignals(server, database)
}

main()
