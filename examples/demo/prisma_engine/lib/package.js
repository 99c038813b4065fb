// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Where the engine in WebAssembly is, and which one.
const fs = require('node:fs')
const path = require('node:path')

const folder = path.dirname(require.resolve('@prisma/schema-engine-wasm/schema_engine_bg'))
const full = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')).version
/** The engine's commit, which the CLI compares with the one it was made for. */
const version = full.split('.').pop()
const [major, minor] = full.split('.').map(Number)
/** Since 7.4 the native engine sends a script statement by statement, so that each commits by itself. */
const sendsStatements = major > 7 || (major === 7 && minor >= 4)

module.exports = { folder, version, sendsStatements }
