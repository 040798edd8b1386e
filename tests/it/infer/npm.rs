//! npm, its workspaces, and what stands beside them.

use super::said;

macro_rules! said {
    ($files:expr, @$expected:literal) => {
        insta::assert_snapshot!(said(&$files), @$expected)
    };
}

#[test]
fn npm_projects() {
    said!([("package.json", r#"{"name": "@acme/site", "scripts": {"test": "echo \"Error: no test specified\" && exit 1", "start": "node ."}}"#)], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app site, in the repository's root
        install      npm install
        container    node:22
        start        npm start
        env          CI=true
        cache        ~/.npm
        · `npm install`   (package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.
    ");
    said!([("package.json", r#"{"name": "bare"}"#), ("server.js", "")], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app bare, in the repository's root
        install      npm install
        container    node:22
        start        node server.js
        env          CI=true
        cache        ~/.npm
        · `npm install`   (package.json)
        · started by `node server.js`, as there is no start script   (package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.
    ");
    said!([("package.json", r#"{"devDependencies": {"prettier": "3"}}"#), ("app/package.json", r#"{"packageManager": "pnpm@9.1.0", "scripts": {"test": "jest", "start": "node x"}}"#), ("app/pnpm-lock.yaml", "")], @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app app, in app
        install      pnpm install --frozen-lockfile
        test         pnpm run test
        container    node:22
        start        pnpm run start
        env          CI=true
        cache        ~/.local/share/pnpm/store
        · `pnpm install --frozen-lockfile`   (app/pnpm-lock.yaml)
        · test: jest   (app/package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.

    · has no test, build or start script: no app   (package.json)
    ");
}

#[test]
fn npm_workspaces() {
    let web = r#"{"name": "web", "dependencies": {"ui": "*"}, "scripts": {"build": "vite build", "test": "vitest"}}"#;
    let api = r#"{"name": "@acme/api", "dependencies": {"ui": "*"}, "scripts": {"start": "node .", "test": "jest"}}"#;
    let ui = r#"{"name": "ui", "scripts": {"build": "tsc", "test": "vitest"}}"#;
    let members = [("apps/web/package.json", web), ("apps/api/package.json", api), ("packages/ui/package.json", ui)];
    let with = |root: &'static [(&'static str, &'static str)]| [root, &members].concat();
    said!(with(&[("package.json", r#"{"workspaces": ["apps/*", "packages/*"]}"#), ("package-lock.json", "")]), @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app libraries, in the repository's root
        install      npm ci
        test         npm test --workspace=packages/ui
        container    node:22
        env          CI=true
        cache        ~/.npm
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `npm ci`   (package-lock.json)
        · libraries: tested, nothing to release   (package.json)
        · in a container, its steps run in node:22

    app api, in the repository's root
        install      npm ci
        test         npm test --workspace=apps/api
        container    node:22
        start        npm start --workspace=apps/api
        env          CI=true
        cache        ~/.npm
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `npm ci`   (package-lock.json)
        · test: jest   (apps/api/package.json)
        · in a container, its steps run in node:22

    app web, in the repository's root
        install      npm ci
        test         npm test --workspace=apps/web
        build        npm run build --workspace=apps/web
        container    node:22
        env          CI=true
        cache        ~/.npm
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `npm ci`   (package-lock.json)
        · test: vitest   (apps/web/package.json)
        · build: vite build   (apps/web/package.json)
        · no start script: a static front end needs an image, or a `start` that serves what `build` makes   (apps/web/package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.
    ");
    said!(with(&[("package.json", r#"{"name": "mono", "scripts": {"test": "turbo test"}}"#), ("pnpm-workspace.yaml", "packages:\n  - 'apps/*'\n  - packages/**\n  - '!packages/old'\n"), ("pnpm-lock.yaml", "")]), @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app mono, in the repository's root
        install      pnpm install --frozen-lockfile
        test         pnpm run test
        container    node:22
        env          CI=true
        cache        ~/.local/share/pnpm/store
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `pnpm install --frozen-lockfile`   (pnpm-lock.yaml)
        · test: the script of the workspace's root   (package.json)
        · in a container, its steps run in node:22

    app api, in the repository's root
        install      pnpm install --frozen-lockfile
        test         pnpm --filter ./apps/api run test
        container    node:22
        start        pnpm --filter ./apps/api run start
        env          CI=true
        cache        ~/.local/share/pnpm/store
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `pnpm install --frozen-lockfile`   (pnpm-lock.yaml)
        · test: jest   (apps/api/package.json)
        · in a container, its steps run in node:22

    app web, in the repository's root
        install      pnpm install --frozen-lockfile
        test         pnpm --filter ./apps/web run test
        build        pnpm --filter ./apps/web run build
        container    node:22
        env          CI=true
        cache        ~/.local/share/pnpm/store
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `pnpm install --frozen-lockfile`   (pnpm-lock.yaml)
        · test: vitest   (apps/web/package.json)
        · build: vite build   (apps/web/package.json)
        · no start script: a static front end needs an image, or a `start` that serves what `build` makes   (apps/web/package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.
    ");
    said!(with(&[("package.json", r#"{"workspaces": {"packages": ["*/*"]}}"#), ("yarn.lock", ""), (".yarnrc.yml", "")]), @r"
    There is no .github/switchover.yml: all of this is inferred.

    Tested: pushes to main, develop, and pull requests

    app libraries, in the repository's root
        install      yarn install --immutable
        test         yarn workspace ui run test
        container    node:22
        env          CI=true
        cache        ~/.yarn/berry/cache
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `yarn install --immutable`   (yarn.lock)
        · libraries: tested, nothing to release   (package.json)
        · in a container, its steps run in node:22

    app api, in the repository's root
        install      yarn install --immutable
        test         yarn workspace @acme/api run test
        container    node:22
        start        yarn workspace @acme/api run start
        env          CI=true
        cache        ~/.yarn/berry/cache
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `yarn install --immutable`   (yarn.lock)
        · test: jest   (apps/api/package.json)
        · in a container, its steps run in node:22

    app web, in the repository's root
        install      yarn install --immutable
        test         yarn workspace web run test
        build        yarn workspace web run build
        container    node:22
        env          CI=true
        cache        ~/.yarn/berry/cache
        · a workspace of 3 packages: apps/api, apps/web, packages/ui   (package.json)
        · `yarn install --immutable`   (yarn.lock)
        · test: vitest   (apps/web/package.json)
        · build: vite build   (apps/web/package.json)
        · no start script: a static front end needs an image, or a `start` that serves what `build` makes   (apps/web/package.json)
        · in a container, its steps run in node:22

    No environment is written: nothing is released.
    ");
}
