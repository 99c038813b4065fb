// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// How pm2 runs the application: one process of the release in which this file lies.
module.exports = {
  apps: [
    {
      name: 'electricity-tokens',
      script: 'dist/server.js',
      cwd: __dirname,
      interpreter: process.execPath,
      exec_mode: 'fork',
      instances: 1,
      // The release's .env decides, not what happens to be set where pm2 is called.
      filter_env: ['DATABASE_URL', 'PORT'],
      // The server says when it listens; whether it works, its health says.
      wait_ready: true,
      listen_timeout: 8000,
      kill_timeout: 6000,
      // A program that dies at once is tried a few times, not for ever.
      min_uptime: 3000,
      max_restarts: 5,
      restart_delay: 300,
    },
  ],
}
