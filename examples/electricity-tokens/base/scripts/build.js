// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Makes dist/ out of src/, stamped with the commit that it was built from.
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const ROOT = path.dirname(__dirname)
const COMMIT = /[0-9a-f]{40}(?:[0-9a-f]{24})?/

/** RELEASE_COMMIT, else the name of the release's folder, else what git says of this folder. */
function commit() {
  if (process.env.RELEASE_COMMIT) return process.env.RELEASE_COMMIT
  const inName = COMMIT.exec(path.basename(ROOT))
  if (inName) return inName[0]
  if (!fs.existsSync(path.join(ROOT, '.git'))) return 'unknown'
  return execFileSync('git', ['rev-parse', 'HEAD'], { cwd: ROOT, encoding: 'utf8' }).trim()
}

const dist = path.join(ROOT, 'dist')
fs.rmSync(dist, { recursive: true, force: true })
fs.cpSync(path.join(ROOT, 'src'), dist, { recursive: true })
const release = { commit: commit() }
fs.writeFileSync(path.join(dist, 'release.json'), JSON.stringify(release, null, 2) + '\n')
console.log(`built dist/ of ${release.commit}`)
