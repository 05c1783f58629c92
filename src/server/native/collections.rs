//! Collections and their other names.

use std::sync::Arc;

use crate::database::Database;
use crate::error::Result;
use crate::server::proto::voisin_v1::{
    AlterCollectionRequest, ChangeAliasesReply, ChangeAliasesRequest, CollectionInfo,
    CreateCollectionRequest, DropCollectionReply, ListCollectionsReply, UnservedCollection,
};
use crate::server::{convert, to_the_end};

pub(super) async fn create(
    database: Arc<Database>,
    request: CreateCollectionRequest,
) -> Result<CollectionInfo> {
    let declared = convert::declared(request)?;
    to_the_end(async move {
        // Whoever drops it at once does not change that it was created.
        let created = database.create_collection(declared).await?;
        Ok(convert::described(created.schema(), &database.aliases()))
    })
    .await
}

pub(super) fn describe(database: &Database, name: &str) -> Result<CollectionInfo> {
    Ok(convert::described(database.collection(name)?.schema(), &database.aliases()))
}

pub(super) fn list(database: &Database) -> ListCollectionsReply {
    let aliases = database.aliases();
    let collections = database.collections();
    let described = collections.iter().map(|one| convert::described(one.schema(), &aliases));
    let unserved = database.unserved().into_iter();
    ListCollectionsReply {
        collections: described.collect(),
        unserved: unserved.map(|(name, reason)| UnservedCollection { name, reason }).collect(),
    }
}

pub(super) async fn drop_one(database: Arc<Database>, name: String) -> Result<DropCollectionReply> {
    to_the_end(async move {
        database.drop_collection(&name).await?;
        Ok(DropCollectionReply {})
    })
    .await
}

pub(super) async fn alter(
    database: Arc<Database>,
    request: AlterCollectionRequest,
) -> Result<CollectionInfo> {
    let name = request.name.clone();
    let change = convert::alteration(request)?;
    to_the_end(async move {
        let altered = database.alter_collection(&name, change).await?;
        Ok(convert::described(altered.schema(), &database.aliases()))
    })
    .await
}

pub(super) async fn change_aliases(
    database: Arc<Database>,
    request: ChangeAliasesRequest,
) -> Result<ChangeAliasesReply> {
    let changes = convert::alias_changes(request);
    to_the_end(async move {
        let aliases = database.change_aliases(changes).await?;
        Ok(ChangeAliasesReply { aliases: aliases.into_iter().collect() })
    })
    .await
}
