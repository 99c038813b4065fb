// Copyright: the backstop.postgres contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

'use strict'
// Prisma's engine in WebAssembly, made at the first request, and the few requests that it leaves to its host.
const fs = require('node:fs')
const path = require('node:path')
const { pathToFileURL } = require('node:url')
const { bindMigrationAwareSqlAdapterFactory } = require('@prisma/driver-adapter-utils')
const { urlInFiles } = require('./arguments')
const { Applying, adapterFactory } = require('./adapter')
const { checkConnection, createDatabase } = require('./connection')
const { folder, version } = require('./package')

/** The engine waits this long for the advisory lock; its timer must not keep a finished process alive. */
const LOCK_TIMEOUT = 10_000

function forgetLockTimer() {
  const setTimer = globalThis.setTimeout
  const patched = (action, delay, ...rest) => {
    const timer = setTimer(action, delay, ...rest)
    if (delay === LOCK_TIMEOUT) timer.unref()
    return timer
  }
  globalThis.setTimeout = Object.assign(patched, setTimer)
}

async function loadEngineClass() {
  const glue = await import(pathToFileURL(path.join(folder, 'schema_engine_bg.js')).href)
  const module = new WebAssembly.Module(fs.readFileSync(path.join(folder, 'schema_engine_bg.wasm')))
  const instance = new WebAssembly.Instance(module, { './schema_engine_bg.js': glue })
  glue.__wbg_set_wasm(instance.exports)
  instance.exports.__wbindgen_start()
  return glue.SchemaEngine
}

const urlOfDatasource = (parameters) =>
  parameters?.datasource?.url ?? (parameters?.datasource?.files && urlInFiles(parameters.datasource.files))

/** The database that one side of a diff names, if it names one. */
function urlOfDiffSide(side) {
  if (side?.tag === 'url') return side.url
  return side?.tag === 'schemaDatasource' ? urlInFiles(side.files) : undefined
}

class Engine {
  #options
  #print
  #applying = new Applying()
  #engine

  constructor(options, print) {
    this.#options = options
    this.#print = print
    forgetLockTimer()
  }

  async handle(method, parameters) {
    const url = () => urlOfDatasource(parameters) ?? this.#options.datasourceUrl()
    if (method === 'createDatabase') return { databaseName: await createDatabase(url()) }
    if (method === 'ensureConnectionValidity') {
      await checkConnection(url())
      return {}
    }
    if (method === 'diff') return this.#diff(parameters)
    const engine = await this.#get(urlOfDatasource(parameters) ?? parameters?.url ?? this.#options.datasourceUrl())
    if (method === 'getDatabaseVersion') return engine.version(parameters)
    if (typeof engine[method] !== 'function') throw new Error(`Method not found: ${method}`)
    if (method === 'applyMigrations') return this.#applyMigrations(engine, parameters)
    return (await engine[method](parameters)) ?? {}
  }

  #get(url, shadowUrl) {
    this.#engine ??= this.#make(url, shadowUrl)
    return this.#engine
  }

  async #make(url, shadowUrl) {
    const SchemaEngine = await loadEngineClass()
    await checkConnection(url)
    const factory = adapterFactory(url, shadowUrl, this.#applying, this.#print)
    const models = this.#options.datamodels.map((file) => [file, fs.readFileSync(file, 'utf8')])
    const settings = { datamodels: models.length ? models : undefined }
    return SchemaEngine.new(settings, () => {}, bindMigrationAwareSqlAdapterFactory(factory))
  }

  async #applyMigrations(engine, parameters) {
    this.#applying.active = true
    try {
      return (await engine.applyMigrations(parameters)) ?? {}
    } catch (error) {
      throw this.#applying.error ?? error
    } finally {
      this.#applying.active = false
    }
  }

  async #diff(parameters) {
    const url =
      urlOfDiffSide(parameters.from) ?? urlOfDiffSide(parameters.to) ?? this.#options.datasourceUrl() ??
      parameters.shadowDatabaseUrl ?? process.env.DATABASE_URL
    const engine = await this.#get(url, parameters.shadowDatabaseUrl)
    // This build cannot read a database within a diff, so the database is turned into a schema first.
    for (const name of ['from', 'to']) {
      if (!['url', 'schemaDatasource'].includes(parameters[name].tag)) continue
      parameters[name] = { tag: 'schemaDatamodel', files: await this.#introspect(engine) }
    }
    const { stdout, exitCode } = await engine.diff(parameters)
    if (stdout) this.#print(stdout)
    return { exitCode }
  }

  async #introspect(engine) {
    const content = 'datasource db {\n  provider = "postgresql"\n  url = "postgresql://unused"\n}\n'
    const files = [{ path: 'schema.prisma', content }]
    try {
      const { schema } = await engine.introspect({
        schema: { files }, force: true, compositeTypeDepth: -1, namespaces: null, baseDirectoryPath: process.cwd(),
      })
      return schema.files
    } catch (error) {
      if (error.code === 'P4001') return files // the database is empty
      throw error
    }
  }
}

module.exports = { Engine, version }
