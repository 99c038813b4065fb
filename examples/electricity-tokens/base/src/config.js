// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Settings: from the environment, else from the file .env of the release.
const fs = require('node:fs')
const path = require('node:path')

const ROOT = path.dirname(__dirname)

/** Lines NAME=value; quotes around a value are taken off, # starts a comment. */
function parseEnvironmentFile(text) {
  const settings = {}
  for (const line of text.split(/\r?\n/)) {
    const match = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$/.exec(line)
    if (!match) continue
    const quoted = /^(["'])(.*)\1$/.exec(match[2])
    settings[match[1]] = quoted ? quoted[2] : match[2].replace(/\s+#.*$/, '')
  }
  return settings
}

function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch {
    return {}
  }
}

function readEnvironmentFile() {
  try {
    return parseEnvironmentFile(fs.readFileSync(path.join(ROOT, '.env'), 'utf8'))
  } catch (error) {
    if (error.code === 'ENOENT') return {}
    throw new Error(`the file .env cannot be read: ${error.message}`)
  }
}

function readConfig() {
  const file = readEnvironmentFile()
  const setting = (name, fallback) => process.env[name] || file[name] || fallback
  const databaseUrl = setting('DATABASE_URL')
  if (!databaseUrl) throw new Error('DATABASE_URL is set neither in the environment nor in the file .env')
  const port = Number(setting('PORT', '3000'))
  if (!Number.isInteger(port) || port < 1 || port > 65535) throw new Error(`PORT is no port number: ${setting('PORT')}`)
  return {
    databaseUrl,
    port,
    host: '127.0.0.1',
    version: readJson(path.join(ROOT, 'package.json')).version ?? null,
    release: readJson(path.join(__dirname, 'release.json')).commit ?? null,
  }
}

module.exports = { readConfig, parseEnvironmentFile }
