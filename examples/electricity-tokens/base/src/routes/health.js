// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Is the application able to work? Only if the database answers.
const log = require('../log')

module.exports = ({ database, config }) => [
  {
    method: 'GET',
    path: '/api/health',
    async handle() {
      const facts = { release: config.release, version: config.version }
      try {
        await database.$queryRaw`SELECT 1`
      } catch (error) {
        log.error('health check failed', { reason: error.message })
        return { status: 503, body: { status: 'unavailable', reason: 'the database does not answer', ...facts } }
      }
      return { body: { status: 'ok', ...facts } }
    },
  },
]
