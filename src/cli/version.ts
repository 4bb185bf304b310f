// SPDX-License-Identifier: Apache-2.0
// The version line. The number before the parenthesis is that of the surface spoken, which
// scripts compare; the one in it is this package's own.

import { readFileSync } from 'node:fs';
import { packageFile } from '../host/index.js';

/** Version of the command lines and protocols that are followed. */
const SURFACE_VERSION = '7.2.0';

export function packageVersion(): string {
  const text = readFileSync(packageFile('package.json'), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  return version;
}

export function versionText(name: string): string {
  return `${name} version ${SURFACE_VERSION} (Blockwright ${packageVersion()})\n`;
}
