// SPDX-License-Identifier: Apache-2.0
// The external data file of an image: which one it is, and when it is opened.
//
// An option says (a node, or how to open one), else the header does. The name in the header is the
// path of a host file and nothing else, relative to the working directory as in the reference:
// never a protocol, never `json:` options, or an image could have anything opened that its user may
// open. Who only looks at headers opens none.

import { BlockError } from '../../../base/index.js';
import type { Child, OpenContext } from '../../../block/index.js';
import type { Qcow2Header } from './header.js';

const NAME = 'data-file';

/** The child with the guest data, opened when no option gave it; null: there is no data file. */
export async function dataFileOf(
  context: OpenContext,
  header: Qcow2Header,
): Promise<Child | null> {
  // Without it there is nothing to be wrong about: only headers are looked at.
  if (context.noData === true) return null;
  const given = context.node.children.has(NAME) ? context.child(NAME) : null;
  if (!header.geometry.dataFile) {
    if (given !== null) {
      throw invalid("'data-file' can only be set for images with an external data file");
    }
    if (header.dataFileRaw) throw invalid('data-file-raw requires a data file');
    return null;
  }
  if (given !== null) return given;
  if (header.dataFile === null || context.openPlainChild === undefined) {
    throw invalid("'data-file' is required for this image");
  }
  return await context.openPlainChild(NAME, header.dataFile);
}

function invalid(message: string): BlockError {
  return new BlockError('invalid-option', message);
}
