//! Znodes of this pair that are open to everybody, from a time before a user was configured: found,
//! closed where that harms nobody, told where it does not go.
//!
//! Closed is what no entry for `world` stands in the way of. Entries for other users are left alone: an
//! operator may have put them there. Nothing is closed while a node of the pair works without the user:
//! it would be locked out, and if it is the master, it could not keep its mastership. Each ACL is
//! written bound to the version that was read, so that nobody's change of it is undone.
//!
//! Ephemeral znodes are left as they are: they go with their session, and the next one makes them
//! closed. The pair's parent (the root) is closed only while no other pair lives there.

use zookeeper_client::{Acl, Client, Error, Stat};

use crate::access::Auth;
use crate::layout::segment;
use crate::serving::Context;

/// An ACL that somebody else changes while we look is read again so many times.
const TRIES_MAX: u32 = 3;
/// Requests under way at once.
const AT_ONCE: usize = 500;

/// What is still open, as a sentence; none: all that is this pair's is closed to others.
pub(crate) async fn close(context: &Context, client: &Client) -> Result<Option<String>, Error> {
    let Some(auth) = &context.settings.access.auth else { return Ok(None) };
    let open = open_znodes(context, client).await?;
    let Some(first) = open.first() else { return Ok(None) };
    if let Some(node) = node_without_user(context, client).await? {
        return Ok(Some(format!(
            "anybody who reaches ZooKeeper can change {first} ({} znodes of this pair are open): \
             node {node} works without coordinator.zookeeper.auth; set it there as here, and they \
             are closed",
            open.len()
        )));
    }
    let mut stuck = Vec::new();
    for path in &open {
        match close_one(client, path, auth).await {
            Ok(true) => tracing::info!(path, user = auth.user(), "znode closed to everybody else"),
            Ok(false) => {}
            Err(error) => stuck.push((path, error)),
        }
    }
    let Some((path, error)) = stuck.first() else { return Ok(None) };
    Ok(Some(format!(
        "anybody who reaches ZooKeeper can change {path} ({} znodes of this pair are open), and it \
         cannot be closed: {error}; as an administrator of ZooKeeper: zkCli.sh setAcl -R {} \
         digest:{}:cdrwa",
        stuck.len(),
        context.layout.base(),
        auth.own_acl().id()
    )))
}

/// The persistent znodes of this pair whose ACL has an entry for everybody, parents first.
async fn open_znodes(context: &Context, client: &Client) -> Result<Vec<String>, Error> {
    let (layout, root) = (&context.layout, context.settings.root.as_str());
    let mut open = Vec::new();
    if root != "/" && is_open(client, root).await? && is_ours_alone(context, client, root).await? {
        open.push(root.to_owned());
    }
    // The registry is the deepest: group, service, version; what is below is ephemeral.
    let mut level = vec![layout.base().to_owned()];
    for _ in 0..=LEVELS {
        let mut parents = Vec::new();
        for some in level.chunks(AT_ONCE) {
            let under_way: Vec<_> = some.iter().map(|path| client.get_acl(path)).collect();
            for (path, answer) in some.iter().zip(under_way) {
                let (acl, stat) = match answer.await {
                    Ok(found) => found,
                    Err(Error::NoNode) => continue,
                    Err(error) => return Err(error),
                };
                if stat.ephemeral_owner != 0 {
                    continue;
                }
                if stat.num_children > 0 && path != &layout.nodes() {
                    parents.push(path.clone());
                }
                if acl.iter().any(is_everybody) {
                    open.push(path.clone());
                }
            }
        }
        level = children(client, &parents).await?;
    }
    Ok(open)
}

/// From the pair's znode to the versions of the registry.
const LEVELS: usize = 4;

async fn children(client: &Client, parents: &[String]) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for some in parents.chunks(AT_ONCE) {
        let under_way: Vec<_> = some.iter().map(|path| client.list_children(path)).collect();
        for (path, listed) in some.iter().zip(under_way) {
            match listed.await {
                Ok(names) => found.extend(names.iter().map(|name| format!("{path}/{name}"))),
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// The root as far as this node can tell: what is closed to us is not open to everybody.
async fn is_open(client: &Client, path: &str) -> Result<bool, Error> {
    match client.get_acl(path).await {
        Ok((acl, _)) => Ok(acl.iter().any(is_everybody)),
        Err(Error::NoNode | Error::NoAuth) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn is_ours_alone(context: &Context, client: &Client, root: &str) -> Result<bool, Error> {
    let own = segment(&context.settings.pair);
    let others = client.list_children(root).await?.into_iter().find(|name| *name != own);
    if let Some(other) = &others {
        tracing::info!(root, other, "left open to everybody: not only this pair lives there");
    }
    Ok(others.is_none())
}

/// A node of this pair that is there and shows by its znodes that it comes as anybody.
async fn node_without_user(context: &Context, client: &Client) -> Result<Option<String>, Error> {
    let nodes = context.layout.nodes();
    let names = client.list_children(&nodes).await?;
    for name in names {
        if is_anybodys(client, &format!("{nodes}/{name}")).await? {
            return Ok(Some(name));
        }
    }
    let master = context.layout.master();
    Ok(is_anybodys(client, &master).await?.then(|| "that is master".to_owned()))
}

async fn is_anybodys(client: &Client, path: &str) -> Result<bool, Error> {
    match client.get_acl(path).await {
        Ok((acl, _)) => Ok(acl.iter().any(is_everybody)),
        Err(Error::NoNode) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there was anything to be closed.
async fn close_one(client: &Client, path: &str, auth: &Auth) -> Result<bool, Error> {
    let mut last = Error::BadVersion;
    for _ in 0..TRIES_MAX {
        let (mut acl, stat): (Vec<Acl>, Stat) = match client.get_acl(path).await {
            Ok(found) => found,
            Err(Error::NoNode) => return Ok(false),
            Err(error) => return Err(error),
        };
        if !acl.iter().any(is_everybody) {
            return Ok(false);
        }
        acl.retain(|entry| !is_everybody(entry));
        let own = auth.own_acl();
        acl.retain(|entry| entry.auth_id() != own.auth_id());
        acl.push(own.clone());
        match client.set_acl(path, &acl, Some(stat.aversion)).await {
            Ok(_) => return Ok(true),
            Err(Error::NoNode) => return Ok(false),
            Err(error @ Error::BadVersion) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn is_everybody(entry: &Acl) -> bool {
    entry.scheme() == "world"
}
