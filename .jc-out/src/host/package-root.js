// SPDX-License-Identifier: Apache-2.0
// Finds files of this package that are not modules of the caller: the addon, package.json, the
// program itself. The same code runs from src/, from dist/ and from a bundle's chunks, each at
// another depth, so the root is looked for: the nearest folder above with our package.json.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
const PACKAGE_NAME = 'blockwright';
let root;
/** Absolute path of `path` (relative to the package); throws outside an installed package. */
export function packageFile(path) {
    root ??= findRoot(dirname(fileURLToPath(import.meta.url)));
    return join(root, path);
}
function findRoot(start) {
    for (let folder = start;; folder = dirname(folder)) {
        if (isRoot(folder))
            return folder;
        if (folder === dirname(folder))
            throw new Error(`${start} is in no ${PACKAGE_NAME} package`);
    }
}
function isRoot(folder) {
    let text;
    try {
        text = readFileSync(join(folder, 'package.json'), 'utf8');
    }
    catch {
        return false;
    }
    return JSON.parse(text).name === PACKAGE_NAME;
}
