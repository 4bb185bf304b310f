// SPDX-License-Identifier: Apache-2.0
// The daemon behind its command line: an engine, its character devices and its monitors.
//
// Closing: engine first (jobs cancelled, nodes flushed), then the monitors, which hand over what
// is still to be sent, then sockets and the pid file.

import { blockdevOptions, objectOptions } from '../../api/index.js';
import { BlockError, escapeControls } from '../../base/index.js';
import { createEngine } from '../../engine/index.js';
import type { Engine } from '../../engine/index.js';
import { openDefaultHost } from '../../host/index.js';
import type { Host } from '../../host/index.js';
import { QmpServer } from '../../qmp/index.js';
import type { SessionStreams } from '../../qmp/index.js';
import {
  bool,
  enumeration,
  optional,
  parseKeyval,
  str,
  struct,
  validate,
} from '../../schema/index.js';
import type { Type } from '../../schema/index.js';
import { JsonSyntaxError, parseJson } from '../../wire/index.js';
import { parseObject } from '../object-option.js';
import { CliError, report } from '../program.js';
import type { Program } from '../program.js';
import { readChardev } from './chardev.js';
import { readTrace } from '../trace.js';
import type { Detached } from './detached.js';
import { PidFile } from './pidfile.js';

const monitorOptions = struct('MonitorOptions', {
  id: optional(str),
  mode: optional(enumeration('MonitorMode', ['readline', 'control'])),
  pretty: optional(bool),
  chardev: str,
});

interface DaemonParts {
  readonly program: Program;
  readonly host: Host;
  readonly engine: Engine;
  readonly detached: Detached | null;
}

export class Daemon {
  readonly #host: Host;
  readonly #engine: Engine;
  readonly #program: Program;
  readonly #detached: Detached | null;
  readonly #servers: QmpServer[] = [];
  #pidPath: string | null = null;
  #pidFile: PidFile | null = null;
  /** Monitors greet nobody before every option of the command line has acted. */
  readonly #up: Promise<void>;
  #declareUp: () => void = () => undefined;

  private constructor({ program, host, engine, detached }: DaemonParts) {
    this.#program = program;
    this.#host = host;
    this.#engine = engine;
    this.#detached = detached;
    if (detached !== null) engine.chardevs.giveUpStdio();
    this.#up = new Promise((resolve) => {
      this.#declareUp = resolve;
    });
  }

  /** `detached`: nobody is at its standard streams. */
  static async start(program: Program, detached: Detached | null = null): Promise<Daemon> {
    const host = openDefaultHost({ warn: (line) => program.err(`${program.name}: ${line}\n`) });
    const onWarning = (text: string): void =>
      program.err(`${program.name}: warning: ${text}\n`);
    const onFinding = (line: string): void => program.err(`${escapeControls(line)}\n`);
    const onCorruption = (text: string): void => program.err(`${text}\n`);
    const told = { onWarning, onFinding, onCorruption };
    const engine = await createEngine({ host, ...told });
    return new Daemon({ program, host, engine, detached });
  }

  get quitRequested(): Promise<void> {
    return this.#engine.quitRequested;
  }

  requestQuit(): void {
    this.#engine.requestQuit();
  }

  /** One option; `words` is how it was written. */
  async perform(name: string, value: string, words: string): Promise<void> {
    switch (name) {
      case 'blockdev':
        return this.#addNode(value);
      case 'object':
        return this.#addObject(value);
      case 'chardev':
        return this.#addChardev(value);
      case 'monitor':
        return this.#addMonitor(value);
      case 'trace':
        return this.#trace(value, words);
      case 'operand':
        throw new CliError('Unexpected argument');
      case 'pidfile':
        this.#pidPath = value;
    }
  }

  /** Everything is up. */
  async ready(): Promise<void> {
    if (this.#pidPath !== null) {
      this.#pidFile = await PidFile.write(this.#host, this.#pidPath);
    }
    this.#detached?.ready();
    this.#declareUp();
  }

  /** What cannot be flushed is thrown, once everything else is closed. */
  async close(): Promise<void> {
    try {
      await this.#engine.close();
    } finally {
      for (const server of this.#servers) await server.close();
      await this.#engine.chardevs.close();
      await this.#pidFile?.remove();
    }
  }

  async #addNode(text: string): Promise<void> {
    const options = readOption(blockdevOptions, text, 'driver');
    await this.#engine.addNode(options);
  }

  async #addObject(text: string): Promise<void> {
    const { tree, form } = parseObject(text);
    await this.#engine.objects.add(validate(objectOptions, tree, '', form));
  }

  #trace(value: string, words: string): Promise<void> {
    const { name } = this.#program;
    const isRead = readTrace(value, (text, place) => {
      const at = place === undefined ? `${name}: ${words}` : `${name}:${place}`;
      report({ ...this.#program, name: at }, text);
    });
    // What is wrong was told, with the place that it is at.
    return isRead ? Promise.resolve() : Promise.reject(new CliError(''));
  }

  #addChardev(text: string): Promise<void> {
    const { id, backend } = readChardev(text);
    return this.#engine.chardevs.add(id, backend);
  }

  #addMonitor(text: string): Promise<void> {
    const options = readOption(monitorOptions, text, 'chardev');
    if (options.mode === 'readline') {
      throw new BlockError('unsupported', 'Only QMP is supported');
    }
    const server = new QmpServer(this.#engine, {
      pretty: options.pretty ?? false,
      crash: (error) => {
        // Out of every promise: a programmer's mistake ends the process.
        process.nextTick(() => {
          throw error;
        });
      },
    });
    const greet = async (streams: SessionStreams): Promise<void> => {
      await this.#up;
      server.serve(streams);
    };
    this.#engine.chardevs.attach(options.chardev, (streams) => void greet(streams));
    this.#servers.push(server);
    return Promise.resolve();
  }
}

/** `key=value,…`, or JSON when it begins with a brace. */
function readOption<T>(type: Type<T>, text: string, impliedKey: string): T {
  if (!text.startsWith('{')) return validate(type, parseKeyval(text, impliedKey), '', 'keyval');
  try {
    return validate(type, parseJson(text));
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    throw new BlockError('invalid-option', error.message, { cause: error });
  }
}
