// SPDX-License-Identifier: Apache-2.0
// Reads a source tree once and gives the facts that the tidy rules judge: text, imports, function
// lengths, called and named globals. The compiler's own parser is used, so that strings and
// comments are never mistaken for code.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import type { CallExpression, ImportTypeNode, NewExpression, Node } from 'typescript/unstable/ast';
import { SyntaxKind } from 'typescript/unstable/ast';
import { API } from 'typescript/unstable/sync';

export interface ImportFact {
  readonly specifier: string;
  readonly line: number;
}

export interface FunctionFact {
  readonly name: string;
  readonly line: number;
  readonly lineCount: number;
}

export interface UseFact {
  /** `Math.random`, `setTimeout`, `new Date()`: a global reached in code. */
  readonly name: string;
  readonly line: number;
}

export interface CodeFile {
  /** Relative to the root, with `/`. */
  readonly path: string;
  readonly text: string;
  readonly imports: readonly ImportFact[];
  readonly functions: readonly FunctionFact[];
  readonly uses: readonly UseFact[];
  /** Names that the file declares. */
  readonly declared: readonly UseFact[];
  /** Nothing but `export … from`. */
  readonly onlyReexports: boolean;
}

export interface SourceTree {
  readonly root: string;
  /** Every file that belongs to the repository, generated folders left out. */
  readonly files: readonly string[];
  readonly code: readonly CodeFile[];
}

const SKIPPED = new Set(['node_modules', 'dist', '.git', '.vitest', 'build']);

export function listFiles(root: string): string[] {
  const found: string[] = [];
  const visit = (folder: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (SKIPPED.has(entry.name)) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) visit(path);
      else if (statSync(path, { throwIfNoEntry: false }) !== undefined) {
        found.push(relative(root, path).split(sep).join('/'));
      }
    }
  };
  visit(root);
  return found.sort();
}

/** Parses src, test, bench and images below `root` with the given configurations. */
export function readSourceTree(root: string, configs: readonly string[]): SourceTree {
  const files = listFiles(root);
  const code = new Map<string, CodeFile>();
  const api = new API({ cwd: root });
  try {
    for (const config of configs) {
      const project = api.updateSnapshot({ openProject: join(root, config) }).getProject(
        join(root, config),
      );
      if (project === undefined) throw new Error(`no project ${config}`);
      for (const path of project.rootFiles) {
        const name = relative(root, path).split(sep).join('/');
        const file = project.program.getSourceFile(path);
        if (file !== undefined && !code.has(name)) code.set(name, factsOf(name, file));
      }
    }
  } finally {
    api.close();
  }
  return { root, files, code: [...code.values()] };
}

export function readText(tree: SourceTree, path: string): string {
  return readFileSync(join(tree.root, path), 'utf8');
}

type ParsedFile = Node & {
  readonly text: string;
  readonly statements: readonly Node[];
  getLineAndCharacterOfPosition(position: number): { line: number };
};

function factsOf(path: string, file: ParsedFile): CodeFile {
  const imports: ImportFact[] = [];
  const functions: FunctionFact[] = [];
  const uses: UseFact[] = [];
  const declared: UseFact[] = [];
  const lineAt = (position: number): number =>
    file.getLineAndCharacterOfPosition(position).line + 1;
  const visit = (node: Node): void => {
    const line = lineAt(node.getStart());
    const specifier = importedBy(node);
    if (specifier !== null) imports.push({ specifier, line });
    if (FUNCTIONS.has(node.kind)) {
      const lineCount = lineAt(node.getEnd()) - line + 1;
      functions.push({ name: functionName(node), line, lineCount });
    }
    const use = usedBy(node);
    if (use !== null) uses.push({ name: use, line });
    const name = declaredBy(node);
    if (name !== null) declared.push({ name, line });
    node.forEachChild(visit);
  };
  file.forEachChild(visit);
  const onlyReexports = file.statements.every(
    (statement) => statement.kind === SyntaxKind.ExportDeclaration,
  );
  return { path, text: file.text, imports, functions, uses, declared, onlyReexports };
}

const FUNCTIONS: ReadonlySet<SyntaxKind> = new Set([
  SyntaxKind.FunctionDeclaration,
  SyntaxKind.FunctionExpression,
  SyntaxKind.ArrowFunction,
  SyntaxKind.MethodDeclaration,
  SyntaxKind.Constructor,
  SyntaxKind.GetAccessor,
  SyntaxKind.SetAccessor,
]);

function literalText(node: Node | undefined): string | null {
  return node?.kind === SyntaxKind.StringLiteral ? (node as Node & { text: string }).text : null;
}

function importedBy(node: Node): string | null {
  if (node.kind === SyntaxKind.ImportDeclaration || node.kind === SyntaxKind.ExportDeclaration) {
    return literalText((node as Node & { moduleSpecifier?: Node }).moduleSpecifier);
  }
  if (node.kind === SyntaxKind.ImportType) {
    const argument = (node as ImportTypeNode).argument as Node & { literal?: Node };
    return literalText(argument.literal);
  }
  if (node.kind === SyntaxKind.CallExpression) {
    const call = node as CallExpression;
    const dynamic = call.expression.kind === SyntaxKind.ImportKeyword;
    return dynamic ? literalText(call.arguments[0]) : null;
  }
  return node.kind === SyntaxKind.NewExpression ? moduleUrl(node as NewExpression) : null;
}

/** `new URL('./worker.js', import.meta.url)` is how a thread's file is named. */
function moduleUrl(node: NewExpression): string | null {
  if (node.expression.getText() !== 'URL') return null;
  const [specifier, base] = node.arguments ?? [];
  if (base?.getText() !== 'import.meta.url') return null;
  const text = literalText(specifier);
  return text?.endsWith('.js') === true ? text : null;
}

function functionName(node: Node): string {
  const own = (node as Node & { name?: Node }).name?.getText();
  if (own !== undefined) return own;
  const parent = node.parent as Node & { name?: Node; expression?: Node };
  if (parent.kind === SyntaxKind.CallExpression) {
    return `callback of ${parent.expression?.getText().split('(')[0] ?? ''}`;
  }
  return parent.name?.getText() ?? (node.kind === SyntaxKind.Constructor ? 'constructor' : '');
}

const WATCHED_GLOBALS = new Set(['setTimeout', 'setInterval', 'performance']);

function usedBy(node: Node): string | null {
  if (node.kind === SyntaxKind.PropertyAccessExpression) {
    const text = node.getText();
    return /^(Math|Date|Buffer|globalThis)\.\w+$/.test(text) ? text : null;
  }
  if (node.kind === SyntaxKind.NewExpression) {
    const made = node as NewExpression;
    if (made.expression.getText() !== 'Date') return null;
    return (made.arguments ?? []).length === 0 ? 'new Date()' : null;
  }
  if (node.kind !== SyntaxKind.Identifier) return null;
  const name = node.getText();
  return WATCHED_GLOBALS.has(name) && !isMemberName(node) ? name : null;
}

function isMemberName(node: Node): boolean {
  const parent = node.parent as Node & { name?: Node };
  return parent.name === node;
}

const DECLARATIONS: ReadonlySet<SyntaxKind> = new Set([
  SyntaxKind.FunctionDeclaration,
  SyntaxKind.MethodDeclaration,
  SyntaxKind.VariableDeclaration,
  SyntaxKind.Parameter,
  SyntaxKind.ClassDeclaration,
  SyntaxKind.InterfaceDeclaration,
  SyntaxKind.TypeAliasDeclaration,
]);

function declaredBy(node: Node): string | null {
  if (!DECLARATIONS.has(node.kind)) return null;
  const name = (node as Node & { name?: Node }).name;
  return name?.kind === SyntaxKind.Identifier ? name.getText() : null;
}
