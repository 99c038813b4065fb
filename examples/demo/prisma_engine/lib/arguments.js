// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// The command line of Prisma's schema engine, and connection URLs out of Prisma schema text.
const fs = require('node:fs')

/** The URL that a datasource block names: a text, or a variable of the environment. */
function urlInSchema(text, key = 'url') {
  const block = /^\s*datasource\s+\w+\s*\{([\s\S]*?)^\s*\}/m.exec(text)
  if (!block) return undefined
  const line = new RegExp(`^\\s*${key}\\s*=\\s*(?:env\\(\\s*"([^"]+)"\\s*\\)|"([^"]*)")`, 'm').exec(block[1])
  if (!line) return undefined
  return line[1] ? process.env[line[1]] : line[2]
}

const urlInFiles = (files) => urlInSchema(files.map((file) => file.content).join('\n'))

class Options {
  datamodels = []
  datasource = null
  command = null
  version = false

  /** The URL to migrate: the direct one if there is one, else the ordinary one. */
  datasourceUrl() {
    if (this.datasource) {
      if (!this.datasource.trimStart().startsWith('{')) return this.datasource
      const given = JSON.parse(this.datasource)
      return given.directUrl || given.url
    }
    const texts = this.datamodels.map((file) => fs.readFileSync(file, 'utf8'))
    for (const key of ['directUrl', 'url']) {
      for (const text of texts) {
        const url = urlInSchema(text, key)
        if (url) return url
      }
    }
    return undefined
  }
}

function parseArguments(argv) {
  const options = new Options()
  const words = [...argv]
  while (words.length) {
    const word = words.shift()
    if (word === '--version' || word === '-V') options.version = true
    else if (['--datamodels', '--datamodel', '-d'].includes(word)) options.datamodels.push(words.shift())
    else if (word === '--datasource') options.datasource = words.shift()
    else if (['--enabled-preview-features', '--extension-types'].includes(word)) words.shift()
    else if (word === 'cli') options.command ??= 'none'
    else if (options.command === 'none') options.command = word
  }
  return options
}

module.exports = { parseArguments, urlInSchema, urlInFiles }
