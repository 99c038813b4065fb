// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// One JSON line per event: what happened to standard output, errors to standard error.

function line(stream, level, event, facts) {
  stream.write(JSON.stringify({ time: new Date().toISOString(), level, event, ...facts }) + '\n')
}

module.exports = {
  info: (event, facts) => line(process.stdout, 'info', event, facts),
  warning: (event, facts) => line(process.stdout, 'warning', event, facts),
  error: (event, facts) => line(process.stderr, 'error', event, facts),
}
